//! The Lease of the election: which replica leads, and where it explains instances.

use std::str::FromStr;

use beatkeeper_api::{
    explain::{EXPLAIN_ANNOTATION, ExplainEndpoint},
    text::plain,
};
use beatkeeper_core::vocabulary::key::Key;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Client, Resource,
    api::{GetParams, ListParams},
    core::Request,
};
use serde_json::Value;

/// The name of the Lease, unless the operator was told another.
pub const ELECTION: &str = "beatkeeper";
/// The namespace in which docs/install.md installs the operator.
pub const NAMESPACE: &str = "beatkeeper";
/// The replica's name is that of its Pod, a hyphen and eight characters.
const SUFFIX: usize = 9;

/// The Lease of an election, as it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Election(pub Key);

/// The text names no Lease.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} names no Lease; write NAMESPACE/NAME, such as beatkeeper/beatkeeper")]
pub struct NoElection(String);

impl FromStr for Election {
    type Err = NoElection;

    fn from_str(text: &str) -> Result<Self, NoElection> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                Ok(Self(Key::new(namespace, name)))
            }
            _ => Err(NoElection(text.to_owned())),
        }
    }
}

/// What the Lease of an election says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elected {
    /// The Lease.
    pub lease: Key,
    /// The replica that leads; empty if none does.
    pub holder: String,
    /// Where it explains instances, if it does.
    pub endpoint: Option<ExplainEndpoint>,
}

impl Elected {
    /// Reads a Lease.
    pub fn read(lease: Key, object: &Value) -> Self {
        let holder = object["spec"]["holderIdentity"].as_str().unwrap_or_default();
        let endpoint = object["metadata"]["annotations"][EXPLAIN_ANNOTATION].as_str();
        let endpoint = endpoint.and_then(|text| serde_json::from_str(text).ok());
        Self { lease, holder: plain(holder).into_owned(), endpoint }
    }

    /// The Pod of the leader.
    pub fn pod(&self) -> &str {
        pod_of(&self.holder)
    }
}

/// The Pod of a replica.
pub fn pod_of(replica: &str) -> &str {
    replica.get(..replica.len().saturating_sub(SUFFIX)).unwrap_or_default()
}

/// Looks for the Lease in all namespaces, or else where it is normally, and in this namespace.
pub async fn find(client: &Client, namespace: Option<&str>) -> Option<Key> {
    let params = ListParams::default().fields(&format!("metadata.name={ELECTION}"));
    let list = match Request::new(Lease::url_path(&(), None)).list(&params) {
        Ok(request) => client.request::<Value>(request).await.ok(),
        Err(_) => None,
    };
    let namespaces: Vec<String> = match list {
        Some(list) => {
            let items = list["items"].as_array().into_iter().flatten();
            let of = |item: &Value| item["metadata"]["namespace"].as_str().map(str::to_owned);
            items.filter_map(of).collect()
        }
        None => [Some(NAMESPACE), namespace].into_iter().flatten().map(str::to_owned).collect(),
    };
    for namespace in namespaces {
        let key = Key::new(&*namespace, ELECTION);
        if read(client, &key).await.is_ok_and(|lease| lease["spec"]["holderIdentity"].is_string()) {
            return Some(key);
        }
    }
    None
}

/// Reads the Lease.
///
/// # Errors
/// If it cannot be read.
pub async fn read(client: &Client, key: &Key) -> kube::Result<Value> {
    let request = Request::new(Lease::url_path(&(), Some(&key.namespace)));
    let request = request.get(&key.name, &GetParams::default());
    client.request(request.map_err(kube::Error::BuildRequest)?).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_election_is_named_by_namespace_and_name() {
        assert_eq!("a/b".parse::<Election>().unwrap(), Election(Key::new("a", "b")));
        for text in ["a", "/b", "a/", ""] {
            assert!(text.parse::<Election>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_lease_tells_the_pod_of_the_leader_and_where_it_answers() {
        let endpoint = r#"{"port":8082,"certificate":"AAEC"}"#;
        let object = json!({
            "metadata": { "annotations": { "beatkeeper.dev/explain": endpoint } },
            "spec": { "holderIdentity": "beatkeeper-7d9f-x2x4z-1a2b3c4d" },
        });
        let elected = Elected::read(Key::new("a", "b"), &object);
        assert_eq!(elected.pod(), "beatkeeper-7d9f-x2x4z");
        let endpoint = elected.endpoint.unwrap();
        assert_eq!((endpoint.port, &*endpoint.certificate.0), (8082, &[0, 1, 2][..]));
        let plain = json!({ "metadata": {}, "spec": { "holderIdentity": "x" } });
        let elected = Elected::read(Key::new("a", "b"), &plain);
        assert_eq!((elected.pod(), &elected.endpoint), ("", &None));
    }
}

//! Reads the facts about an installation. What may not be read becomes a fact, too.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use beatkeeper_api::ServiceRegistration;
use beatkeeper_core::vocabulary::key::Key;
use futures::join;
use k8s_openapi::{
    api::{
        admissionregistration::v1::ValidatingAdmissionPolicy, apps::v1::Deployment,
        coordination::v1::Lease, flowcontrol::v1::PriorityLevelConfiguration,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{GetParams, ListParams},
    core::Request,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::sleep;

use super::{
    all,
    explained::explained,
    gateways::gateways,
    lease, lease_collection,
    rights::{lacking, lacking_of_operator},
    scope::Wanted,
};
use crate::{
    check::{
        facts::{Before, Election, Facts, Operator, Read, Unread},
        installation::VERSION_LABEL,
        rights,
    },
    error::Error,
    flags::ConnectionFlags,
    model::lease::SeenLease,
    session::Session,
    times::between,
};

/// The name of the CustomResourceDefinition.
const CRD: &str = "serviceregistrations.beatkeeper.dev";
/// The label by which the chart's Deployment selects its Pods.
const OPERATOR_LABEL: &str = "beatkeeper.dev/operator";
/// The namespace in which docs/install.md installs the operator.
const NAMESPACE: &str = "beatkeeper";
/// How often the Lease of the election is read while it is awaited that it changes.
const OFTEN: Duration = Duration::from_millis(200);

/// What the user has said of an installation.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// How to reach the cluster. The namespace is that of the operator.
    pub connection: &'a ConnectionFlags,
    /// Where the leader explains instances.
    pub address: Option<&'a str>,
    /// How many bytes the API server's store may have.
    pub quota: Option<u64>,
}

/// Reads the facts about an installation.
///
/// # Errors
/// [`Error::Usage`], if there are several operators and no namespace chooses one.
pub async fn facts(session: &Session, said: Said<'_>) -> Result<Facts, Error> {
    let client = &session.client;
    let operator = operator(client, said.connection.namespace.as_deref()).await?;
    let known = operator.as_ref().ok().and_then(|it| it.as_ref());
    let everything = Wanted::default();
    let registrations = everything.scope.collection::<ServiceRegistration>(client);
    let leases = lease_collection(client, &everything);
    let (
        crd,
        election,
        lacking,
        policies,
        bindings,
        flows,
        levels,
        registrations,
        leases,
        stored,
        explained,
        gateways,
    ) = join!(
        crd(client),
        election(session, known),
        lacking_of_operator(client, known),
        list::<ValidatingAdmissionPolicy>(client),
        list(client),
        list(client),
        list::<PriorityLevelConfiguration>(client),
        all::<ServiceRegistration>(&registrations),
        all::<SeenLease>(&leases),
        stored(client),
        explained(session, said.connection, known, said.address),
        gateways(session, &operator),
    );
    let holder = election.as_ref().ok().and_then(|it| it.as_ref()).map(|it| &*it.holder);
    let proof = proof(session, known, holder).await;
    Ok(Facts {
        crd,
        election,
        proof,
        lacking,
        policies,
        bindings,
        flows,
        levels: levels.map(|all| all.iter().map(ResourceExt::name_any).collect()),
        registrations: registrations.map(|all| all.objects).map_err(|error| Unread::of(&error)),
        leases: leases.map(|all| counted(&all.objects)).map_err(|error| Unread::of(&error)),
        stored,
        quota: said.quota,
        explained,
        gateways,
        operator,
    })
}

/// Reads the facts about a cluster before an installation.
///
/// # Errors
/// [`Error::Usage`], if there are several operators and no namespace chooses one.
pub async fn before(session: &Session, namespace: Option<&str>) -> Result<Before, Error> {
    let client = &session.client;
    let groups = async {
        let groups = client.list_api_group_resources("admissionregistration.k8s.io/v1").await;
        let groups = groups.map_err(|error| Unread::of(&error))?;
        Ok(groups.resources.iter().any(|it| it.kind == "ValidatingAdmissionPolicy"))
    };
    let kubernetes = async {
        let version = client.apiserver_version().await.map_err(|error| Unread::of(&error))?;
        let number = |text: &str| {
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        };
        Ok((number(&version.major), number(&version.minor)))
    };
    let needed = rights::needed_to_install();
    let (kubernetes, lacking, serves_policies, operator) =
        join!(kubernetes, lacking(client, &needed), groups, operator(client, namespace));
    let lacking = lacking.map(|all| all.iter().map(|it| it.resource.to_owned()).collect());
    Ok(Before { kubernetes, lacking, serves_policies, operator: operator? })
}

async fn crd(client: &Client) -> Read<Option<CustomResourceDefinition>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    api.get_opt(CRD).await.map_err(|error| Unread::of(&error))
}

async fn list<K>(client: &Client) -> Read<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let listed = Api::<K>::all(client.clone()).list(&ListParams::default()).await;
    listed.map(|list| list.items).map_err(|error| Unread::of(&error))
}

/// Looks for the operator: in its namespace, or in all; where that is not allowed, in the usual one.
async fn operator(
    client: &Client,
    namespace: Option<&str>,
) -> Result<Read<Option<Operator>>, Error> {
    let found = match namespace {
        Some(namespace) => deployments(Api::namespaced(client.clone(), namespace)).await,
        None => match deployments(Api::all(client.clone())).await {
            Err(kube::Error::Api(status)) if status.code == 403 => {
                deployments(Api::namespaced(client.clone(), NAMESPACE)).await
            }
            found => found,
        },
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => return Ok(Err(Unread::of(&error))),
    };
    let names: Vec<String> = found.iter().map(|it| it.key.to_string()).collect();
    if names.len() > 1 {
        let names = names.join(", ");
        return Err(Error::Usage(format!(
            "there are several operators; choose one with -n: {names}"
        )));
    }
    Ok(Ok(found.into_iter().next()))
}

async fn deployments(api: Api<Deployment>) -> kube::Result<Vec<Operator>> {
    let all = api.list(&ListParams::default()).await?.items;
    Ok(all.iter().filter_map(as_operator).collect())
}

fn as_operator(deployment: &Deployment) -> Option<Operator> {
    let spec = deployment.spec.as_ref()?;
    spec.selector.match_labels.as_ref()?.get(OPERATOR_LABEL)?;
    let pod = spec.template.spec.as_ref()?;
    let container = pod.containers.first()?;
    let status = deployment.status.as_ref();
    Some(Operator {
        key: Key::of(&deployment.metadata),
        account: pod.service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
        wanted: spec.replicas.unwrap_or(1),
        available: status.and_then(|it| it.available_replicas).unwrap_or(0),
        args: container.args.clone().unwrap_or_default(),
        image: container.image.clone().unwrap_or_default(),
        version: deployment.labels().get(VERSION_LABEL).cloned(),
    })
}

/// Reads the Lease of the election, again and again until it changes, or its duration has passed. No clock is compared.
async fn election(session: &Session, operator: Option<&Operator>) -> Read<Option<Election>> {
    let Some(key) = operator.and_then(Operator::election) else { return Ok(None) };
    let mut first: Option<String> = None;
    let begun = session.clock.now();
    loop {
        let path = Lease::url_path(&(), Some(&key.namespace));
        let request = Request::new(path).get(&key.name, &GetParams::default());
        let request = request.map_err(|error| Unread(error.to_string()))?;
        let lease = match session.client.request::<Value>(request).await {
            Ok(lease) => lease,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(Unread::of(&error)),
        };
        let text = |field: &str| lease["spec"][field].as_str().unwrap_or_default().to_owned();
        let (holder, renewed) = (text("holderIdentity"), text("renewTime"));
        let renews = *first.get_or_insert_with(|| renewed.clone()) != renewed;
        let seconds = lease["spec"]["leaseDurationSeconds"].as_u64().unwrap_or(5);
        let has_passed = between(begun, session.clock.now()) > Duration::from_secs(seconds.min(60));
        if renews || holder.is_empty() || has_passed {
            let holder = beatkeeper_api::text::plain(&holder).into_owned();
            return Ok(Some(Election { holder, renews }));
        }
        sleep(OFTEN).await;
    }
}

/// How long ago the leader renewed its probe. That lies in its own namespace, or in those that it watches.
async fn proof(
    session: &Session,
    operator: Option<&Operator>,
    holder: Option<&str>,
) -> Read<Option<Duration>> {
    let (Some(operator), Some(holder)) = (operator, holder) else { return Ok(None) };
    let name = format!("beatkeeper-probe-{holder}");
    let mut oldest = None;
    let namespaces = match operator.watched() {
        none if none.is_empty() => vec![&*operator.key.namespace],
        some => some,
    };
    for namespace in namespaces {
        let found = lease(&session.client, namespace, &name).await;
        let beat = found.map_err(|error| Unread::of(&error))?.and_then(|lease| lease.beat);
        let age = beat.map(|beat| between(beat.at, session.clock.now()));
        oldest = oldest.max(age);
    }
    Ok(oldest)
}

fn counted(leases: &[SeenLease]) -> BTreeMap<Key, usize> {
    let mut counts = BTreeMap::new();
    for lease in leases {
        if let Some(registration) = &lease.heartbeat.registration {
            let key = Key::new(&*lease.key.namespace, &**registration);
            *counts.entry(key).or_insert(0) += 1;
        }
    }
    counts
}

/// The size of the largest store that the API server tells of in its metrics.
async fn stored(client: &Client) -> Read<Option<u64>> {
    let request = http::Request::get("/metrics").body(Vec::new());
    let request = request.map_err(|error| Unread(error.to_string()))?;
    let text = client.request_text(request).await.map_err(|error| Unread::of(&error))?;
    Ok(largest_store(&text))
}

/// The size of the largest store in the metrics of an API server; each etcd has one.
fn largest_store(metrics: &str) -> Option<u64> {
    let sizes = metrics.lines().filter(|line| line.starts_with("apiserver_storage_size_bytes"));
    let sizes = sizes.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    sizes.map(|size| size as u64).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_several_stores_counts() {
        let metrics = "# TYPE apiserver_storage_size_bytes gauge\n\
             apiserver_storage_size_bytes{storage_cluster_id=\"etcd-0\"} 2.048e+06\n\
             apiserver_storage_size_bytes{storage_cluster_id=\"etcd-1\"} 9.1e+07\n\
             apiserver_storage_size_bytes{storage_cluster_id=\"etcd-2\"} 3e+06\n\
             apiserver_storage_objects{resource=\"leases\"} 1e+09\n";
        assert_eq!(largest_store(metrics), Some(91_000_000));
        assert_eq!(largest_store("apiserver_storage_objects 3\n"), None);
    }
}

//! Reads what there is of gateways: their Deployments, their Leases, and which of them the leader lists.

use beatkeeper_api::gateway::{GATEWAY_LABEL, GATEWAYS_ANNOTATION};
use beatkeeper_core::vocabulary::key::Key;
use futures::join;
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde::Deserialize;
use serde_json::Value;

use super::{all, election, scope::Scope};
use crate::{
    check::{
        facts::{Certificate, Deployed, Gateway, Gateways, Operator, Read, Unread},
        installation::VERSION_LABEL,
    },
    model::gateway::SeenGateway,
    session::Session,
    times::between,
};

/// Reads the gateways of an operator. Without an election it has none.
pub async fn gateways(session: &Session, operator: &Read<Option<Operator>>) -> Gateways {
    let operator = match operator {
        Err(why) => return Gateways::unread(why),
        Ok(operator) => operator.as_ref(),
    };
    let elects = operator.and_then(|it| Some((&it.key.namespace, it.election()?)));
    let Some((namespace, election)) = elects else { return Gateways::none() };
    let (deployments, living, listed) = join!(
        deployments(&session.client, namespace, &election.name),
        living(session, namespace, &election.name),
        listed(&session.client, &election),
    );
    Gateways { deployments, living, listed }
}

async fn deployments(client: &Client, namespace: &str, election: &str) -> Read<Vec<Deployed>> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let all = api.list(&ListParams::default()).await.map_err(|error| Unread::of(&error))?;
    Ok(all.items.iter().filter_map(|it| as_gateways(it, election)).collect())
}

/// A Deployment that selects its Pods as the chart's Deployment of gateways does.
fn as_gateways(deployment: &Deployment, election: &str) -> Option<Deployed> {
    let spec = deployment.spec.as_ref()?;
    let selected = spec.selector.match_labels.as_ref()?.get(GATEWAY_LABEL)?;
    let container = spec.template.spec.as_ref()?.containers.first()?;
    let status = deployment.status.as_ref();
    (selected == election).then(|| Deployed {
        key: Key::of(&deployment.metadata),
        wanted: spec.replicas.unwrap_or(1),
        available: status.and_then(|it| it.available_replicas).unwrap_or(0),
        image: container.image.clone().unwrap_or_default(),
        version: deployment.labels().get(VERSION_LABEL).cloned(),
    })
}

async fn living(session: &Session, namespace: &str, election: &str) -> Read<Vec<Gateway>> {
    let leases = Scope::Namespace(namespace.to_owned()).collection::<Lease>(&session.client);
    let leases = leases.labelled(&format!("{GATEWAY_LABEL}={election}"));
    let leases = all::<SeenGateway>(&leases).await.map_err(|error| Unread::of(&error))?;
    let now = session.clock.now();
    Ok(leases.objects.into_iter().map(|seen| as_gateway(seen, now)).collect())
}

fn as_gateway(seen: SeenGateway, now: Timestamp) -> Gateway {
    let certificate = seen.certificate.map(|lifetime| Certificate {
        life: between(lifetime.from, lifetime.until),
        left: between(now, lifetime.until),
    });
    Gateway {
        name: seen.name,
        pod: seen.pod,
        renewed: seen.renewed.map(|at| between(at, now)),
        age: seen.created.map(|at| between(at, now)).unwrap_or_default(),
        certificate,
    }
}

async fn listed(client: &Client, key: &Key) -> Read<Vec<String>> {
    match election::read(client, key).await {
        Ok(lease) => Ok(pods_of(&lease)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(Unread::of(&error)),
    }
}

/// The Pods in the list of gateways of an election's Lease. A list that cannot be read has none.
fn pods_of(lease: &Value) -> Vec<String> {
    #[derive(Deserialize)]
    struct Listed {
        pod: String,
    }
    let list = lease["metadata"]["annotations"][GATEWAYS_ANNOTATION].as_str().unwrap_or_default();
    let list: Vec<Listed> = serde_json::from_str(list).unwrap_or_default();
    list.into_iter().map(|it| it.pod).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_deployment_that_selects_gateways_of_this_operator_counts() {
        let deployment = |label: &str| -> Deployment {
            let template =
                json!({ "spec": { "containers": [{ "name": "gateway", "image": "x:0.1.0" }] } });
            serde_json::from_value(json!({
                "metadata": {
                    "namespace": "beatkeeper", "name": "edge",
                    "labels": { "app.kubernetes.io/version": "0.1.0" },
                },
                "spec": { "replicas": 3, "selector": { "matchLabels": { label: "beatkeeper" } }, "template": template },
                "status": { "availableReplicas": 2 },
            }))
            .unwrap()
        };
        let found = as_gateways(&deployment("beatkeeper.dev/gateway"), "beatkeeper").unwrap();
        assert_eq!(found.key, Key::new("beatkeeper", "edge"));
        assert_eq!((found.wanted, found.available), (3, 2));
        assert_eq!((&*found.image, found.version.as_deref()), ("x:0.1.0", Some("0.1.0")));
        assert_eq!(as_gateways(&deployment("beatkeeper.dev/gateway"), "another"), None);
        assert_eq!(as_gateways(&deployment("beatkeeper.dev/operator"), "beatkeeper"), None);
    }

    #[test]
    fn a_lease_tells_how_long_ago_it_was_renewed_and_how_long_its_certificate_lasts() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let lifetime =
            |from, until| beatkeeper_api::gateway::Lifetime { from: at(from), until: at(until) };
        let seen = |certificate| SeenGateway {
            name: "edge-0".to_owned(),
            pod: "uid".to_owned(),
            renewed: Some(at(98)),
            created: Some(at(40)),
            certificate,
        };
        let gateway = as_gateway(seen(Some(lifetime(10, 400))), at(100));
        assert_eq!(
            (gateway.renewed, gateway.age),
            (Some(Duration::from_secs(2)), Duration::from_secs(60))
        );
        let certificate = gateway.certificate.unwrap();
        assert_eq!((certificate.life.as_secs(), certificate.left.as_secs()), (390, 300));
        let expired = as_gateway(seen(Some(lifetime(10, 99))), at(100)).certificate.unwrap();
        assert!(expired.left.is_zero());
        assert_eq!(as_gateway(seen(None), at(100)).certificate, None);
    }

    #[test]
    fn the_list_of_the_leader_names_pods_and_one_that_cannot_be_read_names_none() {
        let lease = |list: &str| json!({ "metadata": { "annotations": { "beatkeeper.dev/gateways": list } } });
        let list = r#"[{"pod":"a","epoch":"17"},{"pod":"b","epoch":"3"}]"#;
        assert_eq!(pods_of(&lease(list)), ["a", "b"]);
        assert!(pods_of(&lease("none")).is_empty());
        assert!(pods_of(&json!({ "metadata": {} })).is_empty());
    }
}

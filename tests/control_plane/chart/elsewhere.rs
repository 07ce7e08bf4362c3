//! A release whose objects have another name, and are in another namespace than the release.

use std::time::Duration;

use beatkeeper_cluster::Options;
use k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{ConfigMap, ServiceAccount},
};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};

use super::{
    helm::{Helm, RELEASE, chart},
    own_plane,
    rights::{flags_of, kubeconfig_of},
};
use crate::support::{Operator, TestNamespace, eventually};

const ELSEWHERE: &str = "elsewhere";
const NAME: &str = "beatkeeper-pulse";
const INTERVAL: Duration = Duration::from_millis(300);

fn values(ns: &TestNamespace, wide: bool) -> Value {
    json!({
        "namespaceOverride": ELSEWHERE,
        "nameOverride": "pulse",
        "outsideRanges": { &ns.name: ["192.0.2.0/24"] },
        "watchNamespaces": if wide { json!([]) } else { json!([ns.name]) },
        "extraObjects": [
            {
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": "an-object", "namespace": ELSEWHERE },
            },
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  \
             name: {{ include \"beatkeeper.fullname\" . }}-text\n  \
             namespace: {{ include \"beatkeeper.namespace\" . }}\n",
        ],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn by_another_name_and_in_another_namespace_the_rights_of_the_chart_suffice() {
    let plane = own_plane(Options::default()).await;
    let helm = Helm::on(plane);
    let folder = tempfile::tempdir().unwrap();
    helm.kubectl(&["create", "namespace", ELSEWHERE], "").await.unwrap();
    for (verb, wide) in [("install", true), ("upgrade", false)] {
        let ns = TestNamespace::new_on(plane, if wide { "wide" } else { "narrow" }).await;
        let file = folder.path().join("values.json");
        std::fs::write(&file, values(&ns, wide).to_string()).unwrap();
        helm.release(verb, &chart(), &["-f", file.to_str().unwrap()]).await;
        plane.declare(&beatkeeper_api::crd()).await.unwrap();

        let maps: Api<ConfigMap> = Api::namespaced(ns.client.clone(), ELSEWHERE);
        for name in ["an-object", "beatkeeper-pulse-text"] {
            maps.get(name).await.unwrap();
        }
        let config = kubeconfig_of(plane, &folder, ELSEWHERE, NAME).await;
        let chosen = flags_of(&ns.client, ELSEWHERE, NAME).await;
        let chosen: Vec<&str> = chosen.iter().map(String::as_str).collect();
        let operator = Operator::start_as(Some("operator-0"), &config, "", &chosen);
        ns.greeter().await;
        let mut beats = ns.beats("greeter");
        beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
        beats.start(&beats.outside("vm-2", "192.0.2.2"), INTERVAL).await;
        ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
        beats.die("vm-2");
        ns.published_as_ready("greeter", &["192.0.2.1"]).await;
        let leases: Api<Lease> = Api::namespaced(ns.client.clone(), ELSEWHERE);
        eventually("the election is there", async || {
            let holder = leases.get_opt(NAME).await.unwrap()?.spec?.holder_identity?;
            holder.starts_with("operator-0").then_some(())
        })
        .await;
        assert!(operator.stop().await);

        // The namespace of the release has only what Helm itself and Kubernetes keep in it.
        let deployments: Api<Deployment> = Api::namespaced(ns.client.clone(), RELEASE);
        assert!(deployments.list(&ListParams::default()).await.unwrap().items.is_empty());
        let accounts: Api<ServiceAccount> = Api::namespaced(ns.client.clone(), RELEASE);
        let accounts = accounts.list(&ListParams::default()).await.unwrap().items;
        assert!(accounts.iter().all(|account| account.name_any() == "default"), "{accounts:?}");
    }
}

//! What the chart renders, whatever its values, is what an API server takes.

use k8s_openapi::{
    api::core::v1::{Namespace, ServiceAccount},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::helm::{Helm, RELEASE, chart, root, variants};
use beatkeeper_cluster::{ControlPlane, shared};

/// As much of the Prometheus operator's resources as it takes to be asked: their fields are not checked here.
async fn declare_monitoring(plane: &ControlPlane) {
    for (plural, kind) in [
        ("servicemonitors", "ServiceMonitor"),
        ("podmonitors", "PodMonitor"),
        ("prometheusrules", "PrometheusRule"),
    ] {
        let crd: CustomResourceDefinition = serde_json::from_value(json!({
            "metadata": { "name": format!("{plural}.monitoring.coreos.com") },
            "spec": {
                "group": "monitoring.coreos.com",
                "names": { "plural": plural, "singular": kind.to_lowercase(), "kind": kind },
                "scope": "Namespaced",
                "versions": [{ "name": "v1", "served": true, "storage": true, "schema": {
                    "openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    },
                }}],
            },
        }))
        .unwrap();
        plane.declare(&crd).await.unwrap();
    }
}

/// Makes an object, unless an earlier run on this control plane has.
async fn make<K>(api: &Api<K>, object: &K)
where
    K: kube::Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    match api.create(&PostParams::default(), object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        made => drop(made.unwrap()),
    }
}

/// A dry run creates nothing, so what a Pod needs to be let in has to be there.
async fn prepare(plane: &ControlPlane) {
    let client = plane.admin_client().unwrap();
    let namespace: Namespace =
        serde_json::from_value(json!({ "metadata": { "name": RELEASE } })).unwrap();
    make(&Api::all(client.clone()), &namespace).await;
    for name in ["beatkeeper", "keeper-operator"] {
        let account: ServiceAccount =
            serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        make(&Api::namespaced(client.clone(), RELEASE), &account).await;
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(client, RELEASE);
    crate::support::eventually("the default ServiceAccount is there", async || {
        accounts.get_opt("default").await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_every_object_of_every_variant_without_a_warning() {
    let plane = shared().await;
    let helm = Helm::on(plane);
    declare_monitoring(plane).await;
    prepare(plane).await;
    let variants = variants();
    assert!(variants.len() >= 6, "{variants:?}");
    for (name, file) in variants {
        let (chart, file) = (chart(), file.to_str().unwrap().to_owned());
        let chart = chart.to_str().unwrap();
        let manifest =
            helm.run(&["template", RELEASE, chart, "--namespace", RELEASE, "-f", &file]).await;
        let kinds = manifest.lines().filter(|line| line.starts_with("kind: ")).count();
        let flags = ["apply", "--server-side", "--force-conflicts", "--dry-run=server"];
        let mut args = flags.to_vec();
        args.extend(["--validate=strict", "-f", "-"]);
        let said =
            helm.kubectl(&args, &manifest).await.unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(!said.contains("Warning"), "{name}: {said}");
        assert_eq!(said.lines().count(), kinds, "{name}: {said}");
    }
}

#[test]
fn the_alerts_are_those_that_the_page_of_the_metrics_shows() {
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let alerts = std::fs::read_to_string(chart().join("files/alerts.yaml")).unwrap();
    let alerts: Vec<Value> = serde_saphyr::from_str(&alerts).unwrap();
    let shown: Vec<String> = page
        .split("\n**Beatkeeper")
        .skip(1)
        .map(|alert| {
            let name = alert.split_once("**").unwrap().0;
            let expr = alert.split_once("```promql\n").unwrap().1.split_once("\n```").unwrap().0;
            format!("Beatkeeper{name}: {expr}")
        })
        .collect();
    let text = |alert: &Value, key| alert[key].as_str().unwrap().to_owned();
    let ours: Vec<String> = alerts
        .iter()
        .map(|alert| format!("{}: {}", text(alert, "alert"), text(alert, "expr")))
        .collect();
    assert_eq!(ours, shown);
}

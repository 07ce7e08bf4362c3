//! An API server accepts what the chart renders, whatever the values.

use k8s_openapi::{
    api::core::v1::{Namespace, ServiceAccount},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    gitops::parsed,
    helm::{Helm, RELEASE, chart, variants},
};
use beatkeeper_cluster::{ControlPlane, shared};

/// Declares as much of the resources of the Prometheus operator and of cert-manager as requests
/// need. Their fields are not checked here.
async fn declare_others(plane: &ControlPlane) {
    for (group, plural, kind) in [
        ("monitoring.coreos.com", "servicemonitors", "ServiceMonitor"),
        ("monitoring.coreos.com", "podmonitors", "PodMonitor"),
        ("monitoring.coreos.com", "prometheusrules", "PrometheusRule"),
        ("cert-manager.io", "issuers", "Issuer"),
        ("cert-manager.io", "certificates", "Certificate"),
    ] {
        let crd: CustomResourceDefinition = serde_json::from_value(json!({
            "metadata": { "name": format!("{plural}.{group}") },
            "spec": {
                "group": group,
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

/// Creates an object, unless an earlier run on this control plane has created it.
async fn make<K>(api: &Api<K>, object: &K)
where
    K: kube::Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    match api.create(&PostParams::default(), object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        made => drop(made.unwrap()),
    }
}

/// Creates what the admission of a Pod needs, because a dry run creates nothing.
async fn prepare(plane: &ControlPlane) {
    let client = plane.admin_client().unwrap();
    for name in [RELEASE, "monitoring", "elsewhere"] {
        let namespace: Namespace =
            serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        make(&Api::all(client.clone()), &namespace).await;
    }
    for (namespace, name) in [
        (RELEASE, "beatkeeper"),
        (RELEASE, "keeper"),
        (RELEASE, "keeper-operator"),
        ("elsewhere", "keeper"),
    ] {
        let account: ServiceAccount =
            serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        make(&Api::namespaced(client.clone(), namespace), &account).await;
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
    declare_others(plane).await;
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
        // The objects are stored as they are rendered. If the API server wrote a field differently,
        // a tool that compares would always find a difference.
        args.extend(["-o", "json"]);
        let said = helm.kubectl(&args, &manifest).await.unwrap();
        let mut stored: Value = serde_json::from_str(&said).unwrap();
        // A hook does not stay after it has run.
        let is_hook = |it: &Value| it["metadata"]["annotations"].get("helm.sh/hook").is_some();
        for object in parsed(&manifest).into_iter().filter(|object| !is_hook(object)) {
            let same = |it: &Value| {
                it["kind"] == object["kind"]
                    && it["metadata"]["name"] == object["metadata"]["name"]
                    && it["metadata"].get("namespace") == object["metadata"].get("namespace")
            };
            let items = stored["items"].as_array_mut().unwrap();
            let item = items.iter_mut().find(|it| same(it)).unwrap();
            if let Some(difference) = difference(&object, item) {
                panic!("{name}: {} {}: {difference}", object["kind"], object["metadata"]["name"]);
            }
        }
    }
}

/// The place where a stored object differs from the rendered one. Added fields are no difference.
fn difference(rendered: &Value, stored: &Value) -> Option<String> {
    match (rendered, stored) {
        (Value::Object(rendered), Value::Object(stored)) => {
            rendered.iter().find_map(|(key, value)| {
                let nothing = Value::Null;
                let deeper = difference(value, stored.get(key).unwrap_or(&nothing));
                deeper.map(|difference| format!(".{key}{difference}"))
            })
        }
        (Value::Array(rendered), Value::Array(stored)) if rendered.len() == stored.len() => {
            let mut pairs = rendered.iter().zip(stored).enumerate();
            pairs.find_map(|(at, (rendered, stored))| {
                difference(rendered, stored).map(|difference| format!("[{at}]{difference}"))
            })
        }
        _ if rendered == stored => None,
        _ => Some(format!(": {rendered} is stored as {stored}")),
    }
}

/// The kinds and names of all objects in a rendering, sorted.
fn objects(rendered: &str) -> Vec<String> {
    let text =
        |object: &Value, path| object.pointer(path).and_then(Value::as_str).unwrap().to_owned();
    let mut objects: Vec<String> = parsed(rendered)
        .iter()
        .map(|object| format!("{} {}", text(object, "/kind"), text(object, "/metadata/name")))
        .collect();
    objects.sort();
    objects
}

#[tokio::test(flavor = "multi_thread")]
async fn rendered_without_a_cluster_the_chart_has_every_object_that_an_install_would_apply() {
    let plane = shared().await;
    declare_others(plane).await;
    for (name, file) in variants() {
        let file = file.to_str().unwrap();
        let alone = objects(&Helm::offline().render(&["-f", file]).await);
        let (chart, discovering) = (chart(), Helm::on(plane));
        let chart = chart.to_str().unwrap();
        let args = [
            "install",
            RELEASE,
            chart,
            "--namespace",
            RELEASE,
            "--dry-run=server",
            "--take-ownership",
            "-f",
            file,
        ];
        let said = discovering.run(&args).await;
        let applied = said.split_once("\nHOOKS:\n").unwrap().1;
        let applied =
            applied.split_once("\nNOTES:\n").unwrap().0.replace("\nMANIFEST:\n", "\n---\n");
        assert_eq!(alone, objects(&applied), "{name}");
        let policies =
            alone.iter().filter(|it| it.starts_with("ValidatingAdmissionPolicy")).count();
        let expected = match &*name {
            "restricted-values.yaml" => 0,
            name if name.starts_with("gateway-") => 8,
            _ => 6,
        };
        assert_eq!(policies, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_the_example_of_the_charts_metadata() {
    let plane = crate::support::crd::install().await;
    let text = std::fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    let metadata: Value = serde_saphyr::from_str(&text).unwrap();
    let examples = metadata["annotations"]["artifacthub.io/crdsExamples"].as_str().unwrap();
    let examples: Vec<Value> = serde_saphyr::from_str(examples).unwrap();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": examples }).to_string();
    let args = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    let said = Helm::on(plane).kubectl(&args, &list).await.unwrap();
    assert!(said.contains("serviceregistration.beatkeeper.dev/greeter"), "{said}");
    assert!(!said.contains("Warning"), "{said}");
}

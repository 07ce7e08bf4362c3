//! What GitOps tools do to the rendered chart: they render without a cluster, add labels, apply,
//! compare, replace and prune. None of these may remove the CRD, a registration or a published
//! address.
//!
//! The tools are not installed here. The tests follow their documentation and sources: Argo CD
//! overwrites app.kubernetes.io/instance with its label, applies no hooks, updates a CRD where it
//! replaces everything else, and prunes nothing with the sync option Prune=false. Flux prunes
//! nothing whose annotation prune is disabled. kustomize moves objects to another namespace.

use std::{fs, time::Duration};

use beatkeeper_api::heartbeat;
use beatkeeper_cluster::Options;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::Lease,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, ResourceExt, api::PostParams};
use serde_json::{Value, json};

use super::{
    helm::{Helm, RELEASE, variants},
    own_plane,
    rights::{flags, kubeconfig},
};
use crate::support::{Operator, ServiceObserver, TestNamespace, eventually, observer::set};

const INTERVAL: Duration = Duration::from_millis(300);

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The objects of a rendering.
pub fn parsed(rendered: &str) -> Vec<Value> {
    let texts = rendered.split("\n---\n").filter(|text| text.contains("\nkind: "));
    texts.map(|text| serde_saphyr::from_str(text).unwrap()).collect()
}

fn is_crd(object: &Value) -> bool {
    text(object, "/kind") == "CustomResourceDefinition"
}

fn annotation<'a>(object: &'a Value, name: &str) -> &'a str {
    object["metadata"]["annotations"][name].as_str().unwrap_or_default()
}

/// What Argo CD applies of a rendering, for an application whose name differs from the release.
fn tracked(rendered: &str) -> Vec<Value> {
    let mut objects = parsed(rendered);
    objects.retain(|object| annotation(object, "helm.sh/hook").is_empty());
    for object in &mut objects {
        let id = format!("shops:{}/{}", text(object, "/kind"), text(object, "/metadata/name"));
        let metadata = &mut object["metadata"];
        metadata["labels"]["app.kubernetes.io/instance"] = json!("shops");
        metadata["annotations"]["argocd.argoproj.io/tracking-id"] = json!(id);
    }
    objects
}

fn list(objects: &[Value]) -> String {
    json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()
}

async fn live(helm: &Helm<'_>, objects: &[Value]) -> Vec<Value> {
    let said = helm.kubectl(&["get", "-f", "-", "-o", "json"], &list(objects)).await.unwrap();
    let got: Value = serde_json::from_str(&said).unwrap();
    got["items"].as_array().unwrap().clone()
}

/// The identities of objects that must not be created again.
async fn kept(ns: &TestNamespace) -> Vec<Option<String>> {
    let crds: Api<CustomResourceDefinition> = Api::all(ns.client.clone());
    let published = ns.published("greeter").await;
    let mut uids = vec![
        crds.get("serviceregistrations.beatkeeper.dev").await.unwrap().uid(),
        ns.registration("greeter").await.uid(),
        published.endpoints.unwrap().uid(),
    ];
    uids.extend(published.slices.iter().map(ResourceExt::uid));
    uids
}

/// Whether Argo CD or Flux would delete an object that is no longer rendered, or whose application
/// is deleted.
fn prunes(tool: &str, live: &Value) -> bool {
    match tool {
        "Argo CD" => {
            let options = annotation(live, "argocd.argoproj.io/sync-options");
            let has = |option| options.split(',').any(|it| it.trim() == option);
            !(has("Prune=false") && has("Delete=false"))
        }
        _ => annotation(live, "kustomize.toolkit.fluxcd.io/prune") != "disabled",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn applied_compared_replaced_and_pruned_by_gitops_tools_nothing_that_is_published_goes() {
    let plane = own_plane(Options::default()).await;
    let helm = Helm::on(plane);
    let ns = TestNamespace::new_on(plane, "gitops").await;
    let range = format!("outsideRanges.{}={{192.0.2.0/24}}", ns.name);
    let values = ["--set", range.as_str()];
    let rendered = Helm::offline().render(&values).await;
    let objects = tracked(&rendered);
    helm.kubectl(&["create", "namespace", RELEASE], "").await.unwrap();
    helm.kubectl(&["apply", "-f", "-"], &list(&objects)).await.unwrap();
    plane.declare(&beatkeeper_api::crd()).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let chosen = flags(&ns.client).await;
    let chosen: Vec<&str> = chosen.iter().map(String::as_str).collect();
    let config = kubeconfig(plane, &folder).await;
    let operator = Operator::start_as(Some("operator-0"), &config, "", &chosen);
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    let observer = ServiceObserver::of(&ns, "greeter").await;
    let before = kept(&ns).await;

    // The chart is rendered again and compared, with both ways of applying. No difference may
    // remain.
    let again = tracked(&Helm::offline().render(&values).await);
    assert_eq!(again, objects);
    for way in
        [&["diff", "-f", "-"][..], &["diff", "--server-side", "--force-conflicts", "-f", "-"]]
    {
        helm.kubectl(way, &list(&again)).await.unwrap_or_else(|diff| panic!("{way:?}: {diff}"));
    }
    // The way of applying changes.
    let flags = ["apply", "--server-side", "--force-conflicts", "--field-manager=tool", "-f", "-"];
    helm.kubectl(&flags, &list(&again)).await.unwrap();
    // The objects are replaced. A CRD is updated. With force, all other objects are deleted and
    // created again.
    let (crd, others): (Vec<_>, Vec<_>) = again.iter().cloned().partition(is_crd);
    helm.kubectl(&["replace", "-f", "-"], &list(&again)).await.unwrap();
    helm.kubectl(&["replace", "--force", "-f", "-"], &list(&others)).await.unwrap();
    assert_eq!(kept(&ns).await, before);
    // When its ServiceAccount is created again, the operator's Pods are too.
    operator.kill();
    let config = kubeconfig(plane, &folder).await;
    let operator = Operator::start_as(Some("operator-1"), &config, "", &chosen);
    beats.start(&beats.outside("vm-2", "192.0.2.2"), INTERVAL).await;
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    let before = kept(&ns).await;

    // The application is deleted, or no longer contains the chart. Both tools prune everything but
    // the CRD.
    let there = live(&helm, &objects).await;
    for tool in ["Argo CD", "Flux"] {
        let stay: Vec<_> = there.iter().filter(|object| !prunes(tool, object)).cloned().collect();
        assert_eq!(stay.len(), 1, "{tool}");
        assert!(is_crd(&stay[0]), "{tool}: {stay:?}");
    }
    assert!(operator.stop().await);
    let gone: Vec<_> = there.into_iter().filter(|object| !is_crd(object)).collect();
    helm.kubectl(&["delete", "-f", "-"], &list(&gone)).await.unwrap();
    assert_eq!(kept(&ns).await, before);

    // The chart is installed again, under another release name.
    let args = ["template", "anew", "--namespace", RELEASE, "--set", &range];
    let chart = super::helm::chart();
    let args: Vec<&str> = [&args[..2], &[chart.to_str().unwrap()], &args[2..]].concat();
    let renamed = tracked(&Helm::offline().run(&args).await);
    helm.kubectl(&["apply", "-f", "-"], &list(&renamed)).await.unwrap();
    assert_eq!(live(&helm, &crd).await.len(), 1);
    assert_eq!(kept(&ns).await, before);
    observer.always_saw(&set(&["192.0.2.1"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn moved_to_another_namespace_after_rendering_the_operator_may_still_write_its_probe() {
    let plane = own_plane(Options::default()).await;
    let helm = Helm::on(plane);
    let folder = tempfile::tempdir().unwrap();
    let rendered = Helm::offline().render(&["--skip-tests"]).await;
    fs::write(folder.path().join("all.yaml"), rendered).unwrap();
    let kustomization = json!({ "resources": ["all.yaml"], "namespace": "elsewhere" });
    fs::write(folder.path().join("kustomization.yaml"), kustomization.to_string()).unwrap();
    let args = ["kustomize", folder.path().to_str().unwrap()];
    let moved = helm.kubectl(&args, "").await.unwrap();
    helm.kubectl(&["create", "namespace", "elsewhere"], "").await.unwrap();
    helm.kubectl(&["apply", "-f", "-"], &moved).await.unwrap();

    let probe = |name: &str| -> Lease {
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { heartbeat::REGISTRATION_LABEL: "probe.beatkeeper.dev" } },
            "spec": { "holderIdentity": name, "renewTime": heartbeat::renew_time(Timestamp::now()) },
        }))
        .unwrap()
    };
    let create = async |namespace: &str, account: &str, name: &str| {
        let client = plane.client_as(namespace, account, None).await.unwrap();
        let api: Api<Lease> = Api::namespaced(client, "elsewhere");
        api.create(&PostParams::default(), &probe(name)).await
    };
    // All other users with the right to write Leases there are refused.
    let rights = [
        &["create", "role", "leases", "--verb=create", "--resource=leases"][..],
        &["create", "rolebinding", "leases", "--role=leases", "--serviceaccount=elsewhere:default"],
    ];
    for right in rights {
        let args = [right, &["--namespace=elsewhere"]].concat();
        helm.kubectl(&args, "").await.unwrap();
    }
    eventually("the policy is in force", async || {
        let why = create("elsewhere", "default", "of-somebody").await.err()?.to_string();
        why.contains("is a heartbeat for ServiceRegistration").then_some(())
    })
    .await;
    create("elsewhere", RELEASE, "beatkeeper-probe-operator-0").await.unwrap();
}

/// Each place in an object where labels select something of the release.
fn selectors(object: &Value) -> Vec<Value> {
    let kind = text(object, "/kind");
    let path = match kind {
        "Service" => "/spec/selector",
        "NetworkPolicy" => "/spec/podSelector/matchLabels",
        "Deployment" | "PodDisruptionBudget" | "ServiceMonitor" | "PodMonitor" => {
            "/spec/selector/matchLabels"
        }
        _ => return Vec::new(),
    };
    let mut all = vec![object.pointer(path).cloned().expect(kind)];
    if kind == "Deployment" {
        let spec = &object["spec"]["template"]["spec"];
        let apart = &spec["affinity"]["podAntiAffinity"];
        let terms = apart["preferredDuringSchedulingIgnoredDuringExecution"].as_array();
        let spread = spec["topologySpreadConstraints"].as_array();
        let terms = terms.into_iter().flatten().map(|term| &term["podAffinityTerm"]);
        let all_terms = terms.chain(spread.into_iter().flatten());
        all.extend(all_terms.map(|term| term["labelSelector"]["matchLabels"].clone()));
    }
    all
}

/// The labels of the operator, the console and the gateways. No tool writes them.
const SELECTED_BY: [&str; 3] =
    ["beatkeeper.dev/operator", "beatkeeper.dev/console", "beatkeeper.dev/gateway"];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_selected_by_a_label_that_tools_write() {
    for (name, file) in variants() {
        // These variants have constraints of the user.
        if ["full-values.yaml", "gateway-given-values.yaml"].contains(&&*name) {
            continue;
        }
        let rendered = Helm::offline().render(&["-f", file.to_str().unwrap()]).await;
        let objects = parsed(&rendered);
        let labels = |kind: &str, path: &str| -> Vec<&Value> {
            let of_kind = objects.iter().filter(|object| text(object, "/kind") == kind);
            of_kind.filter_map(|object| object.pointer(path)).collect()
        };
        let pods = labels("Deployment", "/spec/template/metadata/labels");
        let services = labels("Service", "/metadata/labels");
        for object in &objects {
            let kind = text(object, "/kind");
            let selected = if kind == "ServiceMonitor" { &services } else { &pods };
            for selector in selectors(object) {
                let all: Vec<_> = selector.as_object().unwrap().iter().collect();
                let [(label, value)] = all[..] else { panic!("{name}: {kind}: {selector}") };
                assert!(SELECTED_BY.contains(&&**label), "{name}: {kind}: {selector}");
                let found = selected.iter().filter(|labels| labels[label] == *value).count();
                assert_eq!(found, 1, "{name}: {kind}: {selector}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_fits_into_the_annotation_of_a_client_side_apply() {
    for (name, file) in variants() {
        let rendered = Helm::offline().render(&["-f", file.to_str().unwrap()]).await;
        for object in parsed(&rendered) {
            let size = object.to_string().len();
            // The limit is half of the 262144 bytes that all annotations of an object may have.
            assert!(size < 131_072, "{name}: {} has {size} bytes", text(&object, "/metadata/name"));
        }
    }
}

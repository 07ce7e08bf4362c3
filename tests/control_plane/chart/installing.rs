//! A release is installed, upgraded, rolled back and uninstalled. What people made with it stays.

use std::{fs, path::Path, time::Duration};

use beatkeeper_api::ServiceRegistration;
use beatkeeper_cluster::Options;
use k8s_openapi::{
    api::apps::v1::Deployment,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    helm::{Helm, RELEASE, chart},
    own_plane,
};
use crate::support::{Operator, ServiceObserver, TestNamespace, observer::set};

const CRD: &str = "serviceregistrations.beatkeeper.dev";

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// An imaginary older chart. Its CRD does not have spec.protection.
fn older_chart() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&chart(), folder.path());
    let file = folder.path().join("files/crd.yaml");
    let mut crd: Value = serde_saphyr::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["properties"].as_object_mut().unwrap().remove("protection").expect("a field to leave out");
    fs::write(file, serde_json::to_string(&crd).unwrap()).unwrap();
    folder
}

/// Whether the API server keeps a field that an older CRD lacks.
async fn knows_protection(ns: &TestNamespace) -> bool {
    let api: Api<ServiceRegistration> = ns.api();
    let patch = json!({ "spec": { "protection": { "minReady": 1 } } });
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let patched = api.patch("greeter", &params, &Patch::Merge(patch)).await.unwrap();
    patched.spec.protection.is_some()
}

/// The identities of all objects that must not be created again.
async fn kept(ns: &TestNamespace) -> Vec<Option<String>> {
    let crds: Api<CustomResourceDefinition> = Api::all(ns.client.clone());
    let published = ns.published("greeter").await;
    let mut uids = vec![
        crds.get(CRD).await.unwrap().uid(),
        ns.registration("greeter").await.uid(),
        published.endpoints.unwrap().uid(),
    ];
    uids.extend(published.slices.iter().map(ResourceExt::uid));
    uids
}

#[tokio::test(flavor = "multi_thread")]
async fn through_upgrade_rollback_and_uninstall_the_crd_the_registrations_and_what_they_publish_stay()
 {
    let plane = own_plane(Options::default()).await;
    let helm = Helm::on(plane);
    let older = older_chart();
    let notes = helm.release("install", older.path(), &[]).await;
    assert!(notes.contains("enforced by an admission policy"), "{notes}");

    let ns = TestNamespace::new_on(plane, "installing").await;
    let ranges = ns.ranges();
    let flags: Vec<&str> = ranges.iter().map(String::as_str).collect();
    let operator = Operator::start(plane, &ns.name, &flags);
    let settled = || tokio::time::sleep(Duration::from_millis(500));
    crate::support::eventually("the CRD is served", async || {
        ns.api::<ServiceRegistration>().list(&Default::default()).await.ok()
    })
    .await;
    // Applied as a reader of the notes would paste it.
    let manifest = notes.split_once("<<YAML\n").unwrap().1.split_once("\nYAML\n").unwrap().0;
    let said = helm.kubectl(&["apply", "-f", "-"], manifest).await.unwrap();
    assert_eq!(said.matches(" created\n").count(), 3, "{said}");
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), Duration::from_millis(500)).await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    let observer = ServiceObserver::of(&ns, "greeter").await;
    let before = kept(&ns).await;
    assert!(!knows_protection(&ns).await, "the older CRD");

    helm.release("upgrade", &chart(), &["--set", "replicas=3"]).await;
    let deployments: Api<Deployment> = Api::namespaced(ns.client.clone(), RELEASE);
    let replicas = async || deployments.get(RELEASE).await.unwrap().spec.unwrap().replicas;
    assert_eq!(replicas().await, Some(3));
    crate::support::eventually("the CRD is upgraded", async || {
        knows_protection(&ns).await.then_some(())
    })
    .await;
    assert_eq!(kept(&ns).await, before);

    // As a Flux HelmRelease with forced upgrades does it.
    helm.release(
        "upgrade",
        &chart(),
        &["--set", "replicas=3", "--force-replace", "--server-side=false"],
    )
    .await;
    assert_eq!(kept(&ns).await, before);

    helm.run(&["rollback", RELEASE, "1", "--namespace", RELEASE]).await;
    assert_eq!(replicas().await, Some(2));
    settled().await;
    assert_eq!(kept(&ns).await, before);

    // A real operator would stop together with its Deployment.
    assert!(operator.stop().await);
    let said = helm.run(&["uninstall", RELEASE, "--namespace", RELEASE]).await;
    assert!(said.contains(CRD), "it names what is kept: {said}");
    assert!(deployments.get_opt(RELEASE).await.unwrap().is_none());
    settled().await;
    assert_eq!(kept(&ns).await, before);
    observer.always_saw(&set(&["192.0.2.1"]));

    // The chart is installed again, over the objects that were kept.
    helm.release("install", &chart(), &[]).await;
    crate::support::eventually("the CRD is upgraded", async || {
        knows_protection(&ns).await.then_some(())
    })
    .await;
    assert_eq!(kept(&ns).await, before);
    observer.always_saw(&set(&["192.0.2.1"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cluster_does_not_serve_fails_the_install_by_its_name() {
    let plane = own_plane(Options::default()).await;
    let helm = Helm::on(plane);
    let chart = chart();
    for (value, kind) in [
        ("metrics.serviceMonitor.enabled=true", "ServiceMonitor"),
        ("metrics.podMonitor.enabled=true", "PodMonitor"),
        (
            r#"metrics.prometheusRule.enabled=true,metrics.prometheusRule.selector=job="x""#,
            "PrometheusRule",
        ),
    ] {
        let args = ["install", RELEASE, chart.to_str().unwrap(), "--set", value];
        let why = helm.try_run(&args).await.unwrap_err();
        assert!(why.contains(&format!("no matches for kind \"{kind}\"")), "{why}");
    }
    let releases = helm.run(&["list", "--all-namespaces", "--short"]).await;
    assert_eq!(releases.trim(), "", "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_value_is_refused_by_its_name() {
    let plane = crate::support::crd::install().await;
    let chart = chart();
    let args = [
        "template",
        RELEASE,
        chart.to_str().unwrap(),
        "--set",
        "metrics.servicemonitor.enabled=true",
    ];
    let why = Helm::on(plane).try_run(&args).await.unwrap_err();
    assert!(
        why.contains("at '/metrics': additional properties 'servicemonitor' not allowed"),
        "{why}"
    );
}

//! How tools that wait for objects judge a registration: kubectl, Helm and Flux with kstatus, Argo CD with its script.

mod kubectl;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use beatkeeper_api::{
    ServiceRegistration, ServiceRegistrationStatus, registration::DRY_RUN_ANNOTATION,
};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command, sync::OnceCell};

use crate::{
    chart::helm::{Helm, root},
    support::{TestNamespace, eventually},
};

/// What a tool makes of an object.
#[derive(Debug, Deserialize, PartialEq)]
struct Judged {
    status: String,
    message: String,
}

/// The program in tests/gitops.
async fn program() -> &'static Path {
    static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();
    let build = async || {
        let output = Command::new(root().join("scripts/gitops")).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().into()
    };
    PROGRAM.get_or_init(build).await
}

async fn judge(args: &[&Path], object: &Value) -> Judged {
    let mut child = Command::new(program().await)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let text = json!([object]).to_string();
    child.stdin.take().unwrap().write_all(text.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [judged] = serde_json::from_slice::<[Judged; 1]>(&output.stdout).unwrap();
    judged
}

/// The status that Helm and Flux compute.
async fn kstatus(object: &Value) -> Judged {
    judge(&["kstatus".as_ref()], object).await
}

/// The health that Argo CD computes.
async fn health(object: &Value) -> Judged {
    judge(&["health".as_ref(), &root().join("examples/argocd/health.lua")], object).await
}

impl TestNamespace {
    /// A registration as any client reads it.
    async fn read_raw(&self, name: &str) -> Value {
        let resource = ApiResource::erase::<ServiceRegistration>(&());
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.name, &resource);
        serde_json::to_value(api.get(name).await.unwrap()).unwrap()
    }

    /// Checks what the tools make of a registration.
    async fn is_judged(&self, name: &str, of_kstatus: &str, of_argo_cd: &str) {
        let object = self.read_raw(name).await;
        let judged = kstatus(&object).await;
        assert_eq!(judged.status, of_kstatus, "{}: {object:#}", judged.message);
        let judged = health(&object).await;
        assert_eq!(judged.status, of_argo_cd, "{}: {object:#}", judged.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_is_in_progress_until_an_operator_has_published_it_and_whenever_it_changes()
{
    let ns = TestNamespace::new("kstatus").await;
    let fresh = ns.greeter().await;
    assert_eq!(fresh.status, Some(ServiceRegistrationStatus::pending()));
    ns.is_judged("greeter", "InProgress", "Progressing").await;

    let operator = ns.operator();
    ns.condition("greeter", "Ready", "True", "Published").await;
    ns.is_judged("greeter", "Current", "Healthy").await;
    // The default is no news: nothing is reported about a registration without instances.
    let events: Api<k8s_openapi::api::events::v1::Event> = ns.api();
    assert_eq!(events.list(&ListParams::default()).await.unwrap().items, []);

    operator.suspend();
    ns.patch::<ServiceRegistration>("greeter", json!({ "spec": { "ttl": "4s" } })).await;
    ns.is_judged("greeter", "InProgress", "Progressing").await;
    operator.resume();
    eventually("the operator reports on the present spec", async || {
        let object = ns.read_raw("greeter").await;
        (object["status"]["observedGeneration"] == object["metadata"]["generation"]).then_some(())
    })
    .await;
    ns.is_judged("greeter", "Current", "Healthy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_is_finished_and_what_would_prevent_publishing_fails_it() {
    let ns = TestNamespace::new("kstatus-dry").await;
    let _operator = ns.operator();
    ns.annotated_greeter(DRY_RUN_ANNOTATION, "true").await;
    ns.condition("greeter", "Ready", "True", "DryRun").await;
    ns.is_judged("greeter", "Current", "Healthy").await;
    let told = health(&ns.read_raw("greeter").await).await.message;
    assert!(told.starts_with("dry run: 0 of 0 instances would be ready; would create"), "{told}");

    ns.service("web", json!({ "selector": { "app": "web" } })).await;
    ns.create::<ServiceRegistration>(json!({
        "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
        "metadata": { "name": "web", "annotations": { DRY_RUN_ANNOTATION: "true" } },
        "spec": TestNamespace::usual_spec(),
    }))
    .await;
    ns.condition("web", "Stalled", "True", "ServiceHasSelector").await;
    ns.is_judged("web", "Failed", "Degraded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_registration_has_failed_and_a_deleted_one_with_a_finalizer_is_terminating() {
    let ns = TestNamespace::new("kstatus-stalled").await;
    let _operator = ns.operator();
    ns.service("greeter", json!({ "selector": { "app": "web" } })).await;
    ns.greeter().await;
    ns.condition("greeter", "Stalled", "True", "ServiceHasSelector").await;
    ns.is_judged("greeter", "Failed", "Degraded").await;

    let finalizers = |all: &[&str]| json!({ "metadata": { "finalizers": all } });
    ns.patch::<ServiceRegistration>("greeter", finalizers(&["example.com/kept"])).await;
    let registrations: Api<ServiceRegistration> = ns.api();
    registrations.delete("greeter", &DeleteParams::default()).await.unwrap();
    // Argo CD calls each object that is being deleted Progressing, and asks no script.
    assert_eq!(kstatus(&ns.read_raw("greeter").await).await.status, "Terminating");
    ns.condition("greeter", "Stalled", "True", "Deleting").await;
    assert_eq!(kstatus(&ns.read_raw("greeter").await).await.status, "Terminating");
    ns.patch::<ServiceRegistration>("greeter", finalizers(&[])).await;
}

/// A chart with nothing but a registration.
fn chart_of_a_registration() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("templates")).unwrap();
    let write = |file: &str, value: Value| {
        std::fs::write(folder.path().join(file), value.to_string()).unwrap();
    };
    write("Chart.yaml", json!({ "apiVersion": "v2", "name": "greeter", "version": "1.0.0" }));
    let registration = json!({
        "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
        "metadata": { "name": "greeter" }, "spec": TestNamespace::usual_spec(),
    });
    write("templates/registration.yaml", registration);
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_waits_for_the_operator_and_not_for_the_end_of_a_dry_run() {
    let ns = TestNamespace::new("helm-waits").await;
    let helm = Helm::on(ns.plane);
    let folder = chart_of_a_registration();
    let chart = folder.path().to_str().unwrap();
    let install = async |timeout: &str| {
        let args = ["upgrade", "--install", "greeter", chart, "--namespace", &ns.name];
        helm.try_run(&[&args[..], &["--wait", "--timeout", timeout]].concat()).await
    };
    let why = install("5s").await.expect_err("no operator runs");
    assert!(why.contains("InProgress"), "{why}");
    let _operator = ns.operator_with(&["--dry-run"]);
    install("60s").await.unwrap();
    ns.condition("greeter", "Ready", "True", "DryRun").await;
}

/// One test of Argo CD's format.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HealthTest {
    input_path: String,
    health_status: Judged,
}

#[tokio::test(flavor = "multi_thread")]
async fn argo_cd_gets_the_health_that_the_examples_say() {
    #[derive(Deserialize)]
    struct Tests {
        tests: Vec<HealthTest>,
    }
    let folder = root().join("examples/argocd");
    let read = |path: &str| std::fs::read_to_string(folder.join(path)).unwrap();
    let Tests { tests } = serde_saphyr::from_str(&read("health_test.yaml")).unwrap();
    let files = std::fs::read_dir(folder.join("testdata")).unwrap().count();
    assert_eq!(tests.len(), files, "each file of testdata/ has its test");
    for HealthTest { input_path, health_status } in tests {
        let object: Value = serde_saphyr::from_str(&read(&input_path)).unwrap();
        // As the operator writes it.
        let _: ServiceRegistration = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(health(&object).await, health_status, "{input_path}");
    }

    // What the comment in the script offers.
    let script = read("health.lua").replace("dry_run = \"Healthy\"", "dry_run = \"Suspended\"");
    let changed = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(changed.path(), script).unwrap();
    let dry_run: Value = serde_saphyr::from_str(&read("testdata/dry-run.yaml")).unwrap();
    let judged = judge(&["health".as_ref(), changed.path()], &dry_run).await;
    assert_eq!(judged.status, "Suspended");
}

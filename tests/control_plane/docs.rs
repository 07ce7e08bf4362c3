//! The commands in the documentation work as they are written.

use std::{path::Path, process::Stdio};

use k8s_openapi::api::{
    core::v1::{ConfigMap, ServiceAccount},
    rbac::v1::RoleBinding,
};
use serde_json::json;

use crate::support::TestNamespace;

const START: &str = include_str!("../../docs/start.md");
const HEARTBEAT: &str = include_str!("../../docs/heartbeat.md");
const AGENT: &str = include_str!("../../docs/agent.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// The section that has its own test.
const FROM_A_SELECTOR: &str = "## From a Service with a selector";

/// The code blocks of a page in one language, in order.
pub fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once(&format!("```{language}\n")) {
        let (block, after) = after.split_once("```").expect("every block is closed");
        blocks.push(block.to_owned());
        rest = after;
    }
    blocks
}

/// A shell that runs the blocks one after the other, like a reader's terminal.
pub struct Reader<'a> {
    pub ns: &'a TestNamespace,
    pub token: String,
    pub said: String,
}

impl Reader<'_> {
    /// Runs a block after all earlier blocks. Of these only the definitions are kept.
    pub async fn run(&mut self, block: &str) -> String {
        let programs =
            [&*self.ns.plane.bin("kubectl"), Path::new(env!("CARGO_BIN_EXE_beatkeeper"))];
        let mut path = programs.map(|program| program.parent().unwrap().to_owned()).to_vec();
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
        let config = self.ns.plane.admin_config("reader").unwrap();
        let kubeconfig = std::fs::read_to_string(self.ns.plane.kubeconfig()).unwrap();
        let kubeconfig: serde_json::Value = serde_json::from_str(&kubeconfig).unwrap();
        let ca_file =
            kubeconfig["clusters"][0]["cluster"]["certificate-authority"].as_str().unwrap();
        let output = tokio::process::Command::new("bash")
            .args(["-euo", "pipefail", "-c", &format!("{}\n{block}", self.said)])
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("KUBECONFIG", self.ns.plane.kubeconfig())
            .env("NAMESPACE", &self.ns.name)
            .env("API_SERVER", config.cluster_url.to_string().trim_end_matches('/'))
            .env("CA_FILE", ca_file)
            .env("TOKEN", &self.token)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        assert!(
            output.status.success(),
            "{block}\nfailed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let definitions = block.lines().filter(|line| line.starts_with("now()"));
        definitions.for_each(|line| self.said.push_str(&format!("{line}\n")));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A token for a workload with the rights that the page asks for.
async fn token(ns: &TestNamespace) -> String {
    let _: ServiceAccount = ns.create(json!({ "metadata": { "name": "vm" } })).await;
    let _: RoleBinding = ns
        .create(json!({
            "metadata": { "name": "vm" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "heartbeat" },
            "subjects": [{ "kind": "ServiceAccount", "name": "vm", "namespace": ns.name }],
        }))
        .await;
    ns.plane.token(&ns.name, "vm", None).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_five_minute_start_does_what_the_page_says() {
    let ns = TestNamespace::new("docs-start").await;
    let _operator = ns.operator();
    let mut reader = Reader { ns: &ns, token: String::new(), said: String::new() };
    let blocks = blocks(START, "bash");
    let [register, create, look, beat, clean_up] = blocks.as_slice() else {
        panic!("the page has {} blocks; tell this test what the new ones should do", blocks.len());
    };
    reader.run(register).await;
    reader.run(create).await;
    ns.published_as_ready("greeter", &["192.0.2.11"]).await;
    let said = reader.run(look).await;
    assert!(said.contains("greeter") && said.contains("192.0.2.11"), "{said}");
    let before = ns.lease("greeter.vm-1").await.unwrap().spec.unwrap().renew_time;
    reader.run(beat).await;
    let after = ns.lease("greeter.vm-1").await.unwrap().spec.unwrap().renew_time;
    assert_ne!(before, after, "not a beat");
    reader.run(clean_up).await;
    assert_eq!(ns.lease("greeter.vm-1").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_heartbeat_page_does_what_the_page_says() {
    let ns = TestNamespace::new("docs").await;
    let _operator = ns.operator();
    let mut reader = Reader { ns: &ns, token: token(&ns).await, said: String::new() };
    let blocks = blocks(HEARTBEAT, "bash");
    let [register, create, beat, curl, failing, draining, delete, cordon, uncordon, gone, role] =
        blocks.as_slice()
    else {
        panic!("the page has {} blocks; tell this test what the new ones should do", blocks.len());
    };
    // The page lists the permissions last, as reference. The token needs them first.
    reader.run(role).await;
    reader.run(register).await;
    reader.run(create).await;
    ns.published_as_ready("greeter", &["192.0.2.11"]).await;

    let renewed = async || -> String {
        let lease: kube::Api<k8s_openapi::api::coordination::v1::Lease> = ns.api();
        let lease = lease.get("greeter.vm-1").await.unwrap();
        lease.spec.unwrap().renew_time.unwrap().0.to_string()
    };
    for block in [beat, curl] {
        let before = renewed().await;
        reader.run(block).await;
        assert_ne!(before, renewed().await, "not a beat: {block}");
    }

    reader.run(failing).await;
    let status = ns.instance("greeter", "vm-1", "NotReady", "HealthFailing").await;
    assert_eq!(status.message, "disk 91 %");
    reader.run(draining).await;
    ns.instance("greeter", "vm-1", "Draining", "HealthDraining").await;
    let conditions = ns.published("greeter").await.conditions();
    assert_eq!(conditions["192.0.2.11"], (false, true, true));
    reader.run(delete).await;
    ns.published_as_ready("greeter", &[]).await;
    reader.run(cordon).await;
    ns.instance("greeter", "vm-2", "Cordoned", "Cordoned").await;
    reader.run(uncordon).await;
    ns.published_as_ready("greeter", &["192.0.2.12"]).await;
    reader.run(gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_operations_page_does_what_the_page_says() {
    let ns = TestNamespace::new("docs-operations").await;
    let _operator = ns.operator();
    let mut reader = Reader { ns: &ns, token: String::new(), said: String::new() };
    let (before, _) = OPERATIONS.split_once(FROM_A_SELECTOR).unwrap();
    let blocks = blocks(before, "bash");
    let [dry, look, publish, wait, argo_cd, by_hand, rehearse, adopt, unbeaten, list, withdraw] =
        blocks.as_slice()
    else {
        panic!("the page has {} blocks; tell this test what the new ones should do", blocks.len());
    };
    reader.run(dry).await;
    reader.run(wait).await;
    let message = ns.condition("greeter", "Ready", "True", "DryRun").await;
    assert!(message.contains("would create service greeter"), "{message}");
    reader.run(look).await;
    reader.run(publish).await;
    ns.condition("greeter", "Ready", "True", "Published").await;
    reader.run(wait).await;

    let _: ConfigMap =
        ns.create(json!({ "metadata": { "name": "argocd-cm" }, "data": { "url": "kept" } })).await;
    reader.run(argo_cd).await;
    let settings = ns.api::<ConfigMap>().get("argocd-cm").await.unwrap().data.unwrap();
    let key = "resource.customizations.health.beatkeeper.dev_ServiceRegistration";
    assert_eq!(settings["url"], "kept");
    assert_eq!(settings[key], include_str!("../../examples/argocd/health.lua"));

    reader.run(by_hand).await;
    reader.run(rehearse).await;
    let message = ns.condition("orders", "Ready", "True", "DryRun").await;
    assert!(message.contains("would take over endpoints orders"), "{message}");
    reader.run(adopt).await;
    ns.condition("orders", "Ready", "True", "Published").await;
    ns.instance("orders", "adopted/192.0.2.21", "Ready", "Adopted").await;
    reader.run(unbeaten).await;
    reader.run(list).await;
    ns.published_as_ready("orders", &["192.0.2.21"]).await;
    reader.run(withdraw).await;
    ns.published_as_ready("orders", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_a_selector_is_taken_over_by_the_commands_of_the_page() {
    let ns = TestNamespace::new("docs-selector").await;
    let _operator = ns.operator();
    let spec = json!({
        "selector": { "app": "web" }, "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
    });
    ns.service("web", spec).await;
    let beats = ns.beats("web");
    for n in 1..=2 {
        let pod = format!("web-{n}");
        ns.pod_on_a_node(&pod, &format!("10.88.7.{n}"), "web").await;
    }
    ns.published_as_ready("web", &["10.88.7.1", "10.88.7.2"]).await;
    let mut reader = Reader { ns: &ns, token: String::new(), said: String::new() };
    let (_, section) = OPERATIONS.split_once(FROM_A_SELECTOR).unwrap();
    let blocks = blocks(section, "bash");
    let [register, look, take_over] = blocks.as_slice() else {
        panic!(
            "the section has {} blocks; tell this test what the new ones should do",
            blocks.len()
        );
    };
    reader.run(register).await;
    ns.looked_at("web").await;
    for n in 1..=2 {
        let pod = format!("web-{n}");
        let uid = ns.api::<k8s_openapi::api::core::v1::Pod>().get(&pod).await.unwrap();
        beats.create(&beats.in_pod(&pod, &uid.metadata.uid.unwrap())).await;
    }
    for pod in ["web-1", "web-2"] {
        ns.instance("web", pod, "Waiting", "NotPublished").await;
    }
    let said = reader.run(look).await;
    assert!(said.contains("web-1 decided to be Ready, but not published"), "{said}");
    let observer = ns.observe("web").await;
    reader.run(take_over).await;
    ns.condition("web", "Ready", "True", "Published").await;
    ns.published_as_ready("web", &["10.88.7.1", "10.88.7.2"]).await;
    assert_eq!(observer.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_agents_page_does_what_the_page_says() {
    let ns = TestNamespace::new("docs-agent").await;
    let _operator = ns.operator();
    let mut reader = Reader { ns: &ns, token: String::new(), said: String::new() };
    let blocks = blocks(AGENT, "bash");
    let [rights, exec, kubeconfig, by_hand] = blocks.as_slice() else {
        panic!("the page has {} blocks; tell this test what the new ones should do", blocks.len());
    };
    reader.run(rights).await;
    // The command of the page ends after a second, in which a busy machine may not register its instance.
    let folder = tempfile::tempdir().unwrap();
    let end = folder.path().join("end");
    let serves = format!("until [ -e {} ]; do sleep 0.05; done", end.display());
    let longer = exec.replace("sleep 1", &serves);
    assert_ne!(longer, *exec);
    let is_registered = async {
        ns.published_as_ready("greeter", &["192.0.2.11"]).await;
        std::fs::write(&end, "").unwrap();
    };
    let (said, ()) = tokio::join!(reader.run(&longer), is_registered);
    assert!(said.contains("serving") && said.contains("beating as vm-1"), "{said}");
    assert!(said.contains("deregistered"), "{said}");
    reader.run(kubeconfig).await;
    ns.published_as_ready("greeter", &["192.0.2.12"]).await;
    let said = reader.run(by_hand).await;
    assert!(said.contains("REGISTRATION") && said.contains("vm-2"), "{said}");
    assert_eq!(ns.lease("greeter.vm-3").await, None);
}

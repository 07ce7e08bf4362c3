//! Each alert of the chart has its runbook, and the commands of the runbooks work.

use std::{collections::BTreeMap, time::Duration};

use beatkeeper_cluster::Options;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::{
    gitops::parsed,
    helm::{Helm, RELEASE, chart, root},
    own_plane,
    rights::{flags, kubeconfig},
    unreadable::install,
};
use crate::{
    docs::{Reader, blocks},
    support::{Operator, TestNamespace},
};

const INTERVAL: Duration = Duration::from_millis(300);

/// The sections of each runbook.
const SECTIONS: [&str; 4] = ["Meaning", "Impact", "Diagnosis", "Mitigation"];

/// What the commands of each runbook print while the namespace `shop` has an expired, a held and a stalled instance.
const PRINTED: [(&str, &[&str]); 12] = [
    ("BeatkeeperAbsent", &["operator-0", "[+]etcd ok", "readyz check passed", "restarted"]),
    (
        "BeatkeeperCannotRead",
        &["leases: yes", "pods: yes", "nodes: yes", "kube-system", "beatkeeper-operator"],
    ),
    (
        "BeatkeeperGatewayCertificateExpired",
        &["beats-certificate\tbeatkeeper-gateway\n", "Z   ", "CARRIER", "greeter"],
    ),
    (
        "BeatkeeperGatewayCertificateExpires",
        &[
            "streams-certificate\tbeatkeeper-gateway-streams\n",
            "beatkeeper-gateway-operator",
            "Z   ",
        ],
    ),
    ("BeatkeeperHolds", &["vm-3\tProtected\t", "greeter.vm-2", "beatkeeper"]),
    ("BeatkeeperManyExpired", &["vm-2\t", "greeter.vm-2"]),
    ("BeatkeeperPathUnproven", &["beatkeeper-probe-operator-0", "yes\nyes\n", "restarted"]),
    ("BeatkeeperPruneSlow", &["apiserver_current_inflight_requests", "beatkeeper"]),
    ("BeatkeeperRegistrationsNotPublished", &["/web\tServiceHasSelector\t"]),
    ("BeatkeeperStoreRolledBack", &["[+]etcd ok", "restarted"]),
    ("BeatkeeperWatchBroken", &["readyz check passed"]),
    (
        "BeatkeeperWritesFail",
        &["/web\t", "endpointslices: no\nyes\n", "apiserver_current_inflight_requests"],
    ),
];

/// The alerts that the chart renders, with its defaults.
pub async fn rendered(values: &[&str]) -> Vec<Value> {
    let only = ["--show-only", "templates/prometheusrule.yaml"];
    let mut rules = parsed(&Helm::offline().render(&[&only, values].concat()).await);
    serde_json::from_value(rules[0]["spec"]["groups"][0]["rules"].take()).unwrap()
}

/// The runbooks by the names of their files.
fn runbooks() -> BTreeMap<String, String> {
    let files = std::fs::read_dir(root().join("docs/runbooks")).unwrap();
    let named = files.map(|file| file.unwrap().path()).map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    });
    named.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_has_its_runbook_and_every_runbook_its_alert() {
    let asked = "metrics.prometheusRule.enabled=true,metrics.serviceMonitor.enabled=true";
    let gateways = "gateway.enabled=true,gateway.certificate.certManager.enabled=true";
    let alerts = rendered(&["--set", asked, "--set", gateways]).await;
    let text =
        |alert: &Value, path| alert.pointer(path).and_then(Value::as_str).unwrap().to_owned();
    let mut names: Vec<String> = alerts.iter().map(|alert| text(alert, "/alert")).collect();
    names.sort();
    let runbooks = runbooks();
    assert_eq!(names, runbooks.keys().cloned().collect::<Vec<_>>());
    for alert in &alerts {
        let name = text(alert, "/alert");
        let page = &runbooks[&name];
        assert!(page.starts_with(&format!("# {name}\n")), "{name} has another title");
        let shown = blocks(page, "promql").into_iter().next();
        assert_eq!(shown, Some(text(alert, "/expr") + "\n"), "{name} shows another expression");
        let (severity, after) = (text(alert, "/labels/severity"), text(alert, "/for"));
        let line = format!("\nSeverity: {severity}. Fires after: {after}.\n");
        assert!(page.contains(&line), "{name} lacks: {line}");
        let sections = page.lines().filter_map(|line| line.strip_prefix("## "));
        assert_eq!(sections.collect::<Vec<_>>(), SECTIONS, "{name}");
        let url = text(alert, "/annotations/runbook_url");
        assert!(url.ends_with(&format!("/docs/runbooks/{name}.md")), "{url}");
    }
}

/// A namespace with one instance that beats, one that has expired, one that is held, and a registration that is
/// stalled.
async fn troubled(ns: &TestNamespace) -> crate::support::Beats {
    ns.greeter().await;
    let mut beats = ns.two_published(INTERVAL).await;
    let mut spec = TestNamespace::usual_spec();
    spec["protection"] = json!({ "minReady": 1 });
    ns.register("guarded", spec).await;
    let mut guarded = ns.beats("guarded");
    guarded.start(&guarded.outside("vm-3", "192.0.2.3"), INTERVAL).await;
    ns.published_as_ready("guarded", &["192.0.2.3"]).await;
    ns.service("web", json!({ "selector": { "app": "web" } })).await;
    ns.register("web", TestNamespace::usual_spec()).await;
    drop(guarded);
    beats.die("vm-2");
    ns.instance("greeter", "vm-2", "Expired", "TTLPassed").await;
    ns.instance("guarded", "vm-3", "Held", "Protected").await;
    ns.condition("web", "Ready", "False", "ServiceHasSelector").await;
    beats
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_every_runbook_shows_what_the_runbook_looks_for() {
    let plane = own_plane(Options::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let ns = TestNamespace::new_on(plane, "shop").await;
    let helm = Helm::on(plane);
    install(&helm, "install", &[&ns], false).await;
    plane.declare(&beatkeeper_api::crd()).await.unwrap();
    let config = kubeconfig(plane, &folder).await;
    let chosen = flags(&ns.client).await;
    // No gateway runs, so the operator is started as before.
    let gateways = ["--reset-then-reuse-values", "--set", "gateway.enabled=true"];
    helm.release("upgrade", &chart(), &gateways).await;
    let chosen: Vec<&str> = chosen.iter().map(String::as_str).collect();
    let _operator = Operator::start_as(Some("operator-0"), &config, "", &chosen);
    let _beats = troubled(&ns).await;
    let release = TestNamespace { name: RELEASE.to_owned(), ..ns.clone() };
    let mut reader = Reader { ns: &release, token: String::new(), said: String::new() };
    let runbooks = runbooks();
    assert_eq!(PRINTED.len(), runbooks.len(), "tell this test what the new runbook shows");
    let restarted = json!({ "kubectl.kubernetes.io/restartedAt": null });
    let never_restarted =
        json!({ "spec": { "template": { "metadata": { "annotations": restarted } } } });
    for (name, wanted) in PRINTED {
        let mut said = String::new();
        for block in blocks(&runbooks[name], "bash") {
            if block.contains("rollout restart") {
                // kubectl refuses a second restart in the same second.
                release.patch::<Deployment>("beatkeeper", never_restarted.clone()).await;
            }
            said += &reader.run(&block).await;
        }
        for text in wanted {
            assert!(said.contains(text), "{name}: no {text:?} in\n{said}");
        }
    }
}

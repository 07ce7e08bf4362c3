//! What the operator cannot read, at its start or later: a namespace that does not exist, or an
//! object it has no right to.

use std::time::Duration;

use beatkeeper_cluster::{ControlPlane, Options};
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    helm::{Helm, RELEASE, chart},
    own_plane,
    rights::{flags, kubeconfig},
};
use crate::support::{Beats, Operator, TestNamespace, eventually, http};

const INTERVAL: Duration = Duration::from_millis(300);
const ASKED: [&str; 2] =
    ["--health-probe-bind-address=127.0.0.1:0", "--metrics-bind-address=127.0.0.1:0"];

struct Running {
    operator: Operator,
    /// The address at which it serves probes and metrics.
    address: String,
}

impl Running {
    /// Starts the operator of the chart, with the rights of its ServiceAccount.
    async fn start(ns: &TestNamespace, folder: &tempfile::TempDir, more: &[&str]) -> Self {
        let config = kubeconfig(ns.plane, folder).await;
        let chosen = flags(&ns.client).await;
        let mut all: Vec<&str> = chosen.iter().map(String::as_str).collect();
        all.extend(ASKED);
        all.extend(more);
        let operator = Operator::start_as(Some("operator-0"), &config, "", &all);
        let address = operator.address("health-probe-bind-address").await;
        Self { operator, address }
    }

    async fn ready(&self) {
        eventually("the operator is ready", async || {
            http::get(&self.address, "/readyz").await.filter(|answer| answer.code == 200)
        })
        .await;
    }

    /// The kinds and namespaces that cannot be read, from the metrics.
    async fn unreadable(&self) -> Vec<String> {
        let text = http::get(&self.address, "/metrics").await.unwrap().body;
        let series = text.lines().filter_map(|line| line.strip_prefix("beatkeeper_unreadable{"));
        let mut all: Vec<String> =
            series.map(|line| line.split_once('}').unwrap().0.to_owned()).collect();
        all.sort();
        all
    }

    /// Waits until exactly these cannot be read. Each kind has a watch of its own.
    async fn cannot_read(&self, wanted: &[&str]) {
        let what = format!("{wanted:?} cannot be read, and nothing else");
        eventually(&what, async || (self.unreadable().await == wanted).then_some(())).await;
    }

    async fn reads_everything(&self) {
        eventually("everything can be read", async || {
            self.unreadable().await.is_empty().then_some(())
        })
        .await;
    }

    /// The log lines about what the operator may not read.
    fn told(&self) -> Vec<String> {
        let log = self.operator.logged();
        let told = log.lines().filter(|line| line.contains("the operator may not read"));
        told.map(str::to_owned).collect()
    }
}

pub(super) async fn install(helm: &Helm<'_>, verb: &str, shops: &[&TestNamespace], narrow: bool) {
    let names: Vec<&str> = shops.iter().map(|ns| ns.name.as_str()).collect();
    let ranges: serde_json::Map<_, _> =
        names.iter().map(|&name| (name.to_owned(), json!(["192.0.2.0/24"]))).collect();
    let watched = if narrow { names } else { Vec::new() };
    let values = json!({ "watchNamespaces": watched, "outsideRanges": ranges });
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    std::fs::write(&file, values.to_string()).unwrap();
    helm.release(verb, &chart(), &["-f", file.path().to_str().unwrap()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_does_not_exist_is_told_costs_no_other_and_is_served_when_it_is_there() {
    let plane = own_plane(Options::default()).await;
    let helm = Helm::on(plane);
    let folder = tempfile::tempdir().unwrap();
    let ns = TestNamespace::new_on(plane, "there").await;
    let client = plane.admin_client().unwrap();
    let later = TestNamespace { plane, client, name: "later".to_owned() };

    // The install fails and names what is missing. An upgrade can complete it.
    let args = ["--set", "watchNamespaces={later}", "--namespace", RELEASE, "--create-namespace"];
    let chart = chart();
    let args = [&["install", RELEASE, chart.to_str().unwrap()][..], &args].concat();
    let why = helm.try_run(&args).await.unwrap_err();
    assert!(why.contains("namespaces \"later\" not found"), "{why}");

    install(&helm, "upgrade", &[&ns], true).await;
    plane.declare(&beatkeeper_api::crd()).await.unwrap();
    // With the cluster's networks as flags, the operator does not need to know which object in any
    // namespace has an address.
    let more =
        ["--namespace=later", "--outside-range=later=192.0.2.0/24", "--cluster-network=10.0.0.0/8"];
    let running = Running::start(&ns, &folder, &more).await;
    running.ready().await;
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    eventually("it is told", async || (!running.told().is_empty()).then_some(())).await;
    // In all namespaces the operator reads the kinds that show which object has an address. Only
    // these other kinds are missing.
    let kinds = ["Endpoints", "Leases", "ServiceRegistrations"];
    let wanted = kinds.map(|kind| format!("watched_namespace=\"later\",kind=\"{kind}\""));
    running.cannot_read(&wanted.each_ref().map(String::as_str)).await;

    // The namespace appears, and an upgrade grants its rights. No restart is needed.
    helm.kubectl(&["create", "namespace", "later"], "").await.unwrap();
    install(&helm, "upgrade", &[&ns, &later], true).await;
    later.greeter().await;
    let mut others = later.beats("greeter");
    others.start(&others.outside("vm-2", "192.0.2.2"), INTERVAL).await;
    later.published_as_ready("greeter", &["192.0.2.2"]).await;
    running.reads_everything().await;
    let told = running.told();
    assert_eq!(told.len(), 1, "{told:#?}");
    for words in ["namespace later", "Create namespace later if it does not exist", "helm upgrade"]
    {
        assert!(told[0].contains(words), "{told:?}");
    }

    // The namespace is deleted with its rights, and created again. Other namespaces are not
    // affected.
    drop(others);
    helm.kubectl(&["delete", "namespace", "later", "--wait"], "").await.unwrap();
    running.ready().await;
    beats.start(&beats.outside("vm-3", "192.0.2.3"), INTERVAL).await;
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.3"]).await;
    helm.kubectl(&["create", "namespace", "later"], "").await.unwrap();
    install(&helm, "upgrade", &[&ns, &later], true).await;
    later.greeter().await;
    let mut others = later.beats("greeter");
    others.start(&others.outside("vm-4", "192.0.2.4"), INTERVAL).await;
    later.published_as_ready("greeter", &["192.0.2.4"]).await;
    running.reads_everything().await;
    assert!(running.operator.stop().await);
}

/// Grants the operator all of its rights except those to read some resource.
pub(super) async fn rights_without(
    plane: &ControlPlane,
    all: &[PolicyRule],
    resource: Option<&str>,
) {
    let roles: Api<ClusterRole> = Api::all(plane.admin_client().unwrap());
    let is_of = |rule: &PolicyRule| {
        rule.resources.iter().flatten().any(|known| Some(known.as_str()) == resource)
    };
    let rules: Vec<&PolicyRule> = all.iter().filter(|rule| !is_of(rule)).collect();
    let patch = Patch::Merge(json!({ "rules": rules }));
    roles.patch("beatkeeper-operator", &PatchParams::default(), &patch).await.unwrap();
}

/// A namespace, and the rules of the operator's ClusterRole.
struct Rights {
    ns: TestNamespace,
    folder: tempfile::TempDir,
    all: Vec<PolicyRule>,
}

impl Rights {
    async fn start(&self) -> Running {
        Running::start(&self.ns, &self.folder, &[]).await
    }

    /// Removes the rights of one resource, or of none.
    async fn without(&self, resource: Option<&str>) {
        rights_without(self.ns.plane, &self.all, resource).await;
    }

    /// From the start, the right to read Nodes is missing: there are no zones, and everything else works.
    async fn nodes_are_missing(&self) {
        self.without(Some("nodes")).await;
        let running = self.start().await;
        running.ready().await;
        self.ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
        running.cannot_read(&["watched_namespace=\"\",kind=\"Nodes\""]).await;
        let told = eventually("it is told", async || running.told().into_iter().next()).await;
        assert!(told.contains("zones are not published"), "{told}");
        assert!(running.operator.stop().await);
    }

    /// From the start, a resource that decisions need cannot be read.
    async fn endpoints_are_missing(&self) {
        self.without(Some("endpoints")).await;
        let running = self.start().await;
        running.ready().await;
        let why = self.ns.condition("greeter", "Ready", "False", "CannotRead").await;
        assert!(why.contains("may not read Endpoints in any namespace"), "{why}");
        self.ns.condition("greeter", "Stalled", "True", "CannotRead").await;
        self.ns.condition("greeter", "PruningHeld", "True", "CannotRead").await;
        running.cannot_read(&["watched_namespace=\"\",kind=\"Endpoints\""]).await;
        self.without(None).await;
        self.ns.condition("greeter", "Ready", "True", "Published").await;
        running.reads_everything().await;
        assert!(running.operator.stop().await);
    }

    /// From the start, the right to write the probe is missing. Nothing can be proven without it.
    async fn probe_is_refused(&self) -> Running {
        let own: Api<Role> = Api::namespaced(self.ns.client.clone(), RELEASE);
        let rules = own.get(RELEASE).await.unwrap().rules.unwrap();
        let patch = Patch::Merge(json!({ "rules": [rules[1]] }));
        own.patch(RELEASE, &PatchParams::default(), &patch).await.unwrap();
        let running = self.start().await;
        running.ready().await;
        let why = self.ns.condition("greeter", "Ready", "False", "PathUnproven").await;
        // The write may be a renewal or a creation, because a revoked right may still apply for a
        // moment.
        assert!(why.contains("the probe Lease beatkeeper/"), "{why}");
        let patch = Patch::Merge(json!({ "rules": rules }));
        own.patch(RELEASE, &PatchParams::default(), &patch).await.unwrap();
        self.ns.condition("greeter", "Ready", "True", "Published").await;
        running
    }

    /// A right is revoked later. A running watch continues until it must be restarted, as after a restart of the API
    /// server.
    async fn pods_are_revoked(&self, running: Running, mut beats: Beats) {
        self.without(Some("pods")).await;
        self.ns.plane.api_server().stop().await.unwrap();
        self.ns.plane.api_server().start().await.unwrap();
        self.ns.condition("greeter", "Ready", "False", "CannotRead").await;
        running.ready().await;
        beats.die("vm-2");
        beats.start(&beats.outside("vm-3", "192.0.2.3"), INTERVAL).await;
        // A Lease that is silent for longer than its ttl, and a new Lease that beats. Neither changes
        // what is published.
        eventually("vm-2 has been silent for two ttls", async || {
            let renewed = self.ns.lease("greeter.vm-2").await?.spec?.renew_time?.0;
            (Timestamp::now().duration_since(renewed).as_secs() >= 6).then_some(())
        })
        .await;
        let published = self.ns.published("greeter").await;
        let wanted = ["192.0.2.1", "192.0.2.2"].map(str::to_owned).into();
        assert_eq!(published.ready(), wanted, "nothing is decided");
        self.without(None).await;
        self.ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.3"]).await;
        self.ns.condition("greeter", "Ready", "True", "Published").await;
        running.reads_everything().await;
        assert!(running.operator.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_right_nothing_is_decided_from_ignorance_and_with_it_all_goes_on() {
    let plane = own_plane(Options::default()).await;
    let helm = Helm::on(plane);
    let folder = tempfile::tempdir().unwrap();
    let ns = TestNamespace::new_on(plane, "wide").await;
    install(&helm, "install", &[&ns], false).await;
    plane.declare(&beatkeeper_api::crd()).await.unwrap();
    let roles: Api<ClusterRole> = Api::all(ns.client.clone());
    let all = roles.get("beatkeeper-operator").await.unwrap().rules.unwrap();
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    beats.start(&beats.outside("vm-2", "192.0.2.2"), INTERVAL).await;

    let rights = Rights { ns, folder, all };
    rights.nodes_are_missing().await;
    rights.endpoints_are_missing().await;
    let running = rights.probe_is_refused().await;
    rights.pods_are_revoked(running, beats).await;
}

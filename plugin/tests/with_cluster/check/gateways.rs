//! The checks of gateways. The chart installs these, and no process runs: the test says that their Pods are ready, and
//! renews their Leases.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use beatkeeper_api::heartbeat::{beat_patch, renew_time};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    installed::Installed,
    stage::{Stage, printed},
};

const VALUES: &str = "gateway.enabled=true,gateway.certificate.existingSecret=beats,\
                      gateway.certificate.streamsSecret=streams,gateway.certificate.operatorSecret=operator";
const LABEL: &str = "beatkeeper.dev/gateway";
const NAMES: [&str; 2] = ["edge-0", "edge-1"];
const LASTING: &str = "2026-01-01T00:00:00Z/9000-01-01T00:00:00Z";
const EXPIRED: &str = "2020-01-01T00:00:00Z/2021-01-01T00:00:00Z";

pub fn each_check_fails_alone(it: &mut Installed) {
    it.stage.register("carried", "  carrier: Gateway\n");
    it.fails("gateways");
    it.install(VALUES);
    it.fails("gateway-replicas");
    it.two_pods_are_ready(LABEL);
    it.fails("gateway-leases");
    let renewals = Renewals::begin(&it.stage);
    // It takes some time: the leader need not have listed a gateway that is new.
    it.fails("gateway-streams");
    list(&it.stage, &NAMES);
    it.all_are_fine(22);

    certificate(&it.stage, EXPIRED);
    it.fails("gateway-certificates");
    certificate(&it.stage, LASTING);
    let version = "app.kubernetes.io/version=0.0.9";
    it.stage.kubectl(&["label", "--overwrite", "deployment/beatkeeper-gateway", version]);
    it.fails("gateway-versions");
    it.repair();
    let binding = "validatingadmissionpolicybinding/beatkeeper-gateway";
    it.replace(binding, "/spec/validationActions", json!(["Audit"]));
    it.fails("gateway-policy");
    it.repair();
    it.all_are_fine(22);

    drop(renewals);
    it.fails("gateway-leases");
    it.stage.kubectl(&["delete", "deployment", "beatkeeper-gateway"]);
    it.stage.kubectl(&["delete", "lease", "-l", LABEL]);
    it.fails("gateways");
    it.stage.kubectl(&["delete", "sreg", "carried"]);
    it.install("");
    it.all_is_fine();
}

fn lease(name: &str) -> String {
    format!("beatkeeper-gateway-{name}")
}

/// Says how long the certificates of one gateway last.
fn certificate(stage: &Stage, lifetime: &str) {
    let annotation = format!("beatkeeper.dev/certificate={lifetime}");
    stage.kubectl(&["annotate", "--overwrite", "lease", &lease(NAMES[1]), &annotation]);
}

/// Lists gateways as the leader does. This leader knows none, and leaves the list as it is.
fn list(stage: &Stage, pods: &[&str]) {
    let list: Vec<Value> = pods.iter().map(|pod| json!({ "pod": pod, "epoch": "1" })).collect();
    let list = Value::from(list).to_string();
    let patch = json!({ "metadata": { "annotations": { "beatkeeper.dev/gateways": list } } });
    stage.kubectl(&["patch", "lease", "beatkeeper", "--type=merge", "-p", &patch.to_string()]);
}

/// The Leases of two gateways, which are renewed until this is dropped.
struct Renewals(Arc<AtomicBool>);

impl Renewals {
    fn begin(stage: &Stage) -> Self {
        let leases = NAMES.map(|name| {
            format!(
                "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata:\n  name: {}\n  \
                 labels: {{ {LABEL}: beatkeeper }}\n  annotations: {{ beatkeeper.dev/certificate: \"{LASTING}\" }}\n\
                 spec: {{ holderIdentity: {name}, leaseDurationSeconds: 10, renewTime: \"{}\" }}\n---\n",
                lease(name),
                renew_time(Timestamp::now())
            )
        });
        stage.apply(&leases.concat());
        let ended = Arc::new(AtomicBool::new(false));
        let (plane, until) = (stage.plane, Arc::clone(&ended));
        thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                for name in NAMES {
                    let patch = beat_patch(Timestamp::now()).to_string();
                    let mut command = plane.kubectl();
                    command.args(["-n", "beatkeeper", "patch", "lease", &lease(name)]);
                    command.args(["--type=merge", "-p", &patch]);
                    printed(command);
                }
                thread::sleep(Duration::from_secs(1));
            }
        });
        Self(ended)
    }
}

impl Drop for Renewals {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

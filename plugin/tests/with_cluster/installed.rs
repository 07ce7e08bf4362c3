//! The chart on a control plane of its own, with an operator that is a process of the test.

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use beatkeeper_cluster::ControlPlane;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::stage::{Stage, eventually, kept_port, printed};

/// The label of the operator's Pods.
const OPERATOR: &str = "beatkeeper.dev/operator";

/// The chart in namespace beatkeeper.
pub struct Installed {
    pub stage: Stage,
    /// Where the leader explains instances: no kubelet runs here, so nothing can be forwarded to a Pod.
    explain: String,
    _port: TcpSocket,
    manifest: String,
    ghost: Arc<AtomicBool>,
}

impl Installed {
    pub fn on(plane: &'static ControlPlane) -> Self {
        let stage = Stage::on(plane, "beatkeeper");
        stage.kubectl(&["create", "namespace", "beatkeeper"]);
        let (port, explain) = kept_port();
        let mut it = Self {
            stage,
            explain: explain.to_string(),
            _port: port,
            manifest: String::new(),
            ghost: Arc::default(),
        };
        it.install("");
        let election = ["--leader-elect", "--leader-elect-resource-namespace=beatkeeper"];
        let range = "--outside-range=beatkeeper=192.0.2.0/24";
        let words = ["controller", range, "--cluster-network=203.0.113.0/24"];
        let explain = format!("--explain-bind-address={}", it.explain);
        let words = [&words[..], &election, &[&*explain]].concat();
        it.stage.start_with("operator", &words, &[("POD_NAMESPACE", "beatkeeper")]);
        it.two_pods_are_ready(OPERATOR);
        it
    }

    /// Applies the chart with further values.
    pub fn install(&mut self, values: &str) {
        self.manifest = rendered(values);
        self.repair();
    }

    /// Applies what the chart renders.
    pub fn repair(&self) {
        let mut command = self.stage.plane.kubectl();
        command.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]);
        self.stage.feed(command, &self.manifest);
    }

    /// Replaces a field of an object, which is named as kind/name.
    pub fn replace(&self, what: &str, path: &str, value: Value) {
        let patch = json!([{ "op": "replace", "path": path, "value": value }]).to_string();
        self.stage.kubectl(&["patch", what, "--type=json", "-p", &patch]);
    }

    fn pods(&self, label: &str) -> Vec<String> {
        let pods = self.stage.read(&["get", "pods", "-l", label, "-o", "name"]);
        pods.lines().map(str::to_owned).collect()
    }

    /// Waits until two Pods with this label are made, and says that they are ready.
    pub fn two_pods_are_ready(&self, label: &str) {
        let pods = eventually("the Pods are made", || {
            let pods = self.pods(label);
            if pods.len() == 2 { Ok(pods) } else { Err(format!("{pods:?}")) }
        });
        pods.iter().for_each(|pod| self.ready(pod, "True"));
    }

    /// There is no kubelet that would say so.
    fn ready(&self, pod: &str, status: &str) {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let ready = json!([{ "type": "Ready", "status": status, "lastTransitionTime": now }]);
        let patch = json!({ "status": { "phase": "Running", "conditions": ready } }).to_string();
        self.stage.kubectl(&["patch", pod, "--subresource=status", "-p", &patch]);
    }

    pub fn one_pod_is_ready(&self, status: &str) {
        self.ready(&self.pods(OPERATOR)[0], status);
    }

    /// What `check` says with these flags.
    pub fn told(&self, flags: &[&str]) -> (i32, Vec<Value>) {
        with(&self.stage, &[&["--operator-address", &self.explain], flags].concat())
    }

    /// Waits until no check has anything to say.
    pub fn all_is_fine(&self) {
        self.all_are_fine(15);
    }

    /// Waits until there are so many checks, and none has anything to say.
    pub fn all_are_fine(&self, count: usize) {
        eventually("all is fine", || {
            let (code, checks) = self.told(&[]);
            let is_fine = |it: &Value| it["outcome"] == "fine";
            let fine = code == 0 && checks.len() == count && checks.iter().all(is_fine);
            let others = || checks.iter().filter(|it| !is_fine(it)).collect::<Vec<_>>();
            if fine { Ok(()) } else { Err(format!("{:#?}", others())) }
        });
    }

    /// Waits until exactly this check fails.
    pub fn fails(&self, check: &str) {
        self.all_fail(&[check]);
    }

    /// Waits until exactly these checks fail.
    pub fn all_fail(&self, expected: &[&str]) {
        eventually(&expected.join(", "), || {
            let (code, checks) = self.told(&[]);
            let failed = failed(&checks);
            if code == 1 && failed == expected {
                return Ok(());
            }
            Err(format!("{failed:?}"))
        });
    }

    /// Makes a leader that renews the Lease of the election, and has not renewed its probe for long.
    pub fn a_ghost_leads(&self) {
        self.stage.apply(
            "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: { name: beatkeeper-probe-ghost }\n\
             spec: { holderIdentity: ghost, renewTime: \"2020-01-01T00:00:00.000000Z\" }\n",
        );
        // The API server has noted when this was written, and that counts more than what the Lease says.
        self.replace("lease/beatkeeper-probe-ghost", "/metadata/managedFields", json!([{}]));
        let (plane, ended) = (self.stage.plane, Arc::clone(&self.ghost));
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let now = Timestamp::now();
                let micros = now.subsec_microsecond();
                let now = format!("{}.{micros:06}Z", now.strftime("%Y-%m-%dT%H:%M:%S"));
                let patch = json!({ "spec": { "holderIdentity": "ghost", "renewTime": now } });
                let mut command = plane.kubectl();
                command.args(["-n", "beatkeeper", "patch", "lease", "beatkeeper", "--type=merge"]);
                command.args(["-p", &patch.to_string()]);
                printed(command);
            }
        });
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        self.ghost.store(true, Ordering::Relaxed);
    }
}

/// What the chart renders with further values.
fn rendered(values: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut helm = Command::new(root.join("scripts/helm"));
    helm.args(["template", "beatkeeper"]).arg(root.join("charts/beatkeeper"));
    helm.args(["--namespace", "beatkeeper", "--no-hooks"]);
    helm.args(["--set", "outsideRanges.beatkeeper={192.0.2.0/24},explain.enabled=true"]);
    if !values.is_empty() {
        helm.args(["--set", values]);
    }
    let rendered = printed(helm);
    assert_eq!(rendered.code, 0, "{rendered:?}");
    rendered.out
}

/// What `check` says with these flags: its exit code, and the checks.
pub fn with(stage: &Stage, flags: &[&str]) -> (i32, Vec<Value>) {
    let printed = stage.plugin(&[&["check", "-o", "json"], flags].concat());
    let document: Value = serde_json::from_str(&printed.out).unwrap_or_default();
    let checks = document["checks"].as_array().cloned().unwrap_or_default();
    assert!(!checks.is_empty(), "{printed:?}");
    (printed.code, checks)
}

/// The names of the checks that fail.
pub fn failed(checks: &[Value]) -> Vec<String> {
    let failed = checks.iter().filter(|it| it["outcome"] == "failed");
    failed.map(|it| it["name"].as_str().unwrap().to_owned()).collect()
}

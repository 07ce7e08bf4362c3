//! A namespace with a registration, and agents that beat for it as processes.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use beatkeeper_api::{PortSpec, ServiceRegistration, ServiceRegistrationSpec};
use beatkeeper_cluster::ControlPlane;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::crd::install;

/// The longest wait of a test. Events that tests await normally come within milliseconds. The limit
/// is high because the machine may be busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const LEASE: &str = "greeter.vm-1";

/// A separate namespace with a registration `greeter`.
pub(super) struct TestNamespace {
    pub(super) plane: &'static ControlPlane,
    pub(super) client: Client,
    pub(super) name: String,
}

impl TestNamespace {
    pub(super) async fn new() -> Self {
        let ns = Self::without_registration().await;
        ns.register("2s", "200ms").await;
        ns
    }

    pub(super) async fn without_registration() -> Self {
        Self::on(install().await).await
    }

    pub(super) async fn on(plane: &'static ControlPlane) -> Self {
        let name = plane.namespace("agent").await.unwrap();
        Self { plane, client: plane.admin_client().unwrap(), name }
    }

    pub(super) async fn register(&self, ttl: &str, interval: &str) {
        let spec = ServiceRegistrationSpec {
            ttl: ttl.to_owned(),
            interval: interval.to_owned(),
            ports: vec![PortSpec { port: 80, protocol: "TCP".to_owned(), ..PortSpec::default() }],
            ..ServiceRegistrationSpec::default()
        };
        let registration = ServiceRegistration::new("greeter", spec);
        Api::namespaced(self.client.clone(), &self.name)
            .create(&PostParams::default(), &registration)
            .await
            .unwrap();
    }

    pub(super) fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Creates a Pod that no kubelet runs.
    pub(super) async fn pod(&self, name: &str) -> Pod {
        let pod = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "containers": [{ "name": "c", "image": "c" }] },
        }));
        Api::namespaced(self.client.clone(), &self.name)
            .create(&PostParams::default(), &pod.unwrap())
            .await
            .unwrap()
    }

    pub(super) fn agent(&self, flags: &[&str]) -> Agent {
        self.agent_with(&self.plane.kubeconfig(), flags)
    }

    pub(super) fn agent_with(&self, kubeconfig: &Path, flags: &[&str]) -> Agent {
        let mut child = Command::new(env!("CARGO_BIN_EXE_beatkeeper"))
            .args(["agent", "run", "--registration", "greeter", "--namespace", &self.name])
            .args(flags)
            .env_remove("POD_NAME")
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Agent { child, lines }
    }

    pub(super) fn vm(&self) -> Agent {
        self.agent(&["--instance", "vm-1"])
    }
}

pub(super) struct Agent {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Agent {
    /// Waits for the next line that contains `text`, and returns it.
    pub(super) async fn says(&mut self, text: &str) -> String {
        let search = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                println!("agent: {line}");
                if line.contains(text) {
                    return line;
                }
            }
            panic!("the agent ended without saying {text:?}");
        };
        timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("never said {text:?}"))
    }

    pub(super) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(super) async fn exit_code(&mut self) -> Option<i32> {
        timeout(PATIENCE, self.child.wait()).await.expect("the agent ends").unwrap().code()
    }
}

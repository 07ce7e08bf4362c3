//! A cluster to measure: a control plane with its registrations, and its operators.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use beatkeeper_api::{ServiceRegistration, ServiceRegistrationStatus};
use beatkeeper_cluster::{Child, ControlPlane, Options};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::messages::Instance;
use crate::metrics;
use crate::process::{free_port, until_it_answers};
use crate::system::{Part, Setup, System};

/// The namespace of all objects.
pub const NAMESPACE: &str = "bench";
/// A range reserved for benchmarks (RFC 2544), with 131,072 addresses.
const RANGE: &str = "198.18.0.0/15";
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// Returns the address of an instance.
pub fn address_of(instance: Instance) -> IpAddr {
    Ipv4Addr::from_bits(FIRST.to_bits() + 1 + instance).into()
}

/// Returns the instance with an address.
pub fn instance_at(address: &str) -> Option<Instance> {
    address.parse::<Ipv4Addr>().ok()?.to_bits().checked_sub(FIRST.to_bits() + 1)
}

/// Returns the name of a registration and its Service.
pub fn name_of(service: u32) -> String {
    format!("bench-{service}")
}

/// A control plane with registrations that no operator reconciles yet. Its etcd syncs each write to disk, as in
/// production.
pub struct Cluster {
    /// The control plane.
    pub plane: ControlPlane,
    /// A client that may do everything.
    pub client: Client,
    data: PathBuf,
    services: u32,
}

/// A running operator. It is killed when this value is dropped.
pub struct Operator {
    pub process: Child,
    metrics: Client,
}

impl Operator {
    /// Returns what is measured of the operator.
    pub fn part(&self) -> Result<Part> {
        let metrics = Some(self.metrics.clone());
        Ok(Part { name: "operator", pid: self.process.pid()?, metrics })
    }

    /// Returns the value of a metric without labels.
    pub async fn metric(&self, name: &str) -> Result<Option<f64>> {
        Ok(metrics::value(&metrics::page(&self.metrics).await?, name))
    }

    /// Whether the operator reports that it leads; false if it does not answer.
    pub async fn leads(&self) -> bool {
        self.metric("beatkeeper_leader").await.is_ok_and(|leads| leads == Some(1.0))
    }
}

impl Cluster {
    /// Starts the control plane, and declares the registrations.
    pub async fn start(setup: &Setup) -> Result<Self> {
        // The audit log is off, because it would record each beat.
        let options = Options { fsync: true, audit: false, ..Options::default() };
        let plane = ControlPlane::start(options).await?;
        plane.declare(&beatkeeper_api::crd()).await?;
        let client = plane.admin_client()?;
        let namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        for service in 0..setup.services {
            register(&client, &name_of(service), setup).await?;
        }
        Ok(Self { plane, client, data: setup.data.clone(), services: setup.services })
    }

    /// Returns the description for the results.
    pub fn version(&self) -> String {
        format!(
            "Beatkeeper {} on Kubernetes {} with etcd {}, one member, fsync on",
            env!("CARGO_PKG_VERSION"),
            beatkeeper_cluster::KUBERNETES_VERSION,
            beatkeeper_cluster::ETCD_VERSION,
        )
    }

    /// Returns the address of a process, as HOST:PORT.
    pub fn address(&self, part: beatkeeper_cluster::Part) -> String {
        self.plane.url(part).rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// Writes a kubeconfig for another port of this machine.
    pub fn kubeconfig_by(&self, port: u16) -> Result<PathBuf> {
        let mut config: Value =
            serde_json::from_str(&fs::read_to_string(self.plane.kubeconfig())?)?;
        config["clusters"][0]["cluster"]["server"] = format!("https://127.0.0.1:{port}").into();
        let path = self.data.join(format!("kubeconfig-{port}"));
        fs::write(&path, config.to_string())?;
        Ok(path)
    }

    /// Starts an operator, without waiting. `name` is the name of its log.
    pub fn operator(&self, name: &str, kubeconfig: &Path, flags: &[&str]) -> Result<Operator> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = beatkeeper(kubeconfig)?;
        command
            .args(["controller", "--namespace", NAMESPACE])
            .arg(format!("--outside-range={NAMESPACE}={RANGE}"))
            .args(["--metrics-bind-address", &address])
            .args(flags);
        let metrics = metrics::client(&address)?;
        Ok(Operator { process: Child::start(name, command, &self.data)?, metrics })
    }

    /// Waits until an operator leads and has reconciled its registrations.
    pub async fn until_it_publishes(&self, operator: &Operator) -> Result<()> {
        let registrations: Api<ServiceRegistration> =
            Api::namespaced(self.client.clone(), NAMESPACE);
        let reconciled = async || {
            // Registrations are reconciled in any order. The check uses the last one made.
            let registration = registrations.get(&name_of(self.services - 1)).await?;
            let reported = registration.status.filter(ServiceRegistrationStatus::is_reported);
            reported.context("the operator has not looked at its registration")?;
            Ok(())
        };
        until_it_answers(&operator.process, reconciled).await
    }

    /// Returns what is measured of the API server.
    pub async fn api_server(&self) -> Result<Part> {
        let pid = self.plane.api_server().pid().await?.context("the API server does not run")?;
        Ok(Part { name: "kube-apiserver", pid, metrics: Some(self.client.clone()) })
    }

    /// Returns what is measured of etcd.
    pub async fn etcd(&self) -> Result<Part> {
        let pid = self.plane.etcd().pid().await?.context("etcd does not run")?;
        let metrics = metrics::client(&self.address(beatkeeper_cluster::Part::Etcd))?;
        Ok(Part { name: "etcd", pid, metrics: Some(metrics) })
    }

    /// Returns the number of Leases, without those of the operator itself.
    pub async fn leases(&self) -> Result<usize> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        let ours = beatkeeper_api::heartbeat::REGISTRATION_LABEL;
        Ok(leases.list_metadata(&ListParams::default().labels(ours)).await?.items.len())
    }
}

/// Returns a command for the `beatkeeper` binary that was built with this program.
pub fn beatkeeper(kubeconfig: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?.with_file_name("beatkeeper"));
    command.env("KUBECONFIG", kubeconfig).env_remove("POD_NAME").env_remove("RUST_LOG");
    Ok(command)
}

async fn register(client: &Client, name: &str, setup: &Setup) -> Result<()> {
    let ports = json!([{ "name": "grpc", "port": 80, "targetPort": 8080 }]);
    let service: Service = serde_json::from_value(
        json!({ "metadata": { "name": name }, "spec": { "ports": ports } }),
    )?;
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    services.create(&PostParams::default(), &service).await?;
    let registration: ServiceRegistration = serde_json::from_value(json!({
        "apiVersion": "beatkeeper.dev/v1alpha1",
        "kind": "ServiceRegistration",
        "metadata": { "name": name },
        "spec": {
            "ttl": format!("{}s", setup.ttl.as_secs()),
            "interval": format!("{}s", setup.interval.as_secs()),
            "ports": ports,
            "carrier": if setup.system == System::Gateway { "Gateway" } else { "Lease" },
        },
    }))?;
    let registrations: Api<ServiceRegistration> = Api::namespaced(client.clone(), NAMESPACE);
    registrations.create(&PostParams::default(), &registration).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_back_to_its_instance() {
        assert_eq!(address_of(0).to_string(), "198.18.0.1");
        for instance in [0, 254, 255, 9_999, 130_000] {
            assert_eq!(instance_at(&address_of(instance).to_string()), Some(instance));
        }
        assert_eq!(instance_at("192.0.2.1"), None);
    }
}

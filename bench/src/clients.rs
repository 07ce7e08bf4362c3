//! Measures the cost of clients: the agent and the SDK, each as a process with one instance and with many, on a
//! control plane without other load.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use beatkeeper_cluster::Child;

use crate::meter::{self, Edge};
use crate::plan::Plan;
use crate::process::PATIENCE;
use crate::results::Results;
use crate::system::{Part, System};
use crate::systems::control_plane::{Cluster, NAMESPACE, address_of, beatkeeper, name_of};

/// Measures all clients, and adds the results to the files of the folder.
///
/// # Errors
/// If a process fails, or a client does not register.
pub async fn measure(plan: Plan) -> Result<()> {
    let data = tempfile::Builder::new().prefix("beatkeeper-bench-").tempdir()?;
    let folder = data.path().to_owned();
    let cluster = Cluster::start(&plan.setup(System::Beatkeeper, &folder)).await?;
    let version = cluster.version() + ", without an operator";
    plan.results(System::Beatkeeper, String::new(), 1).append_version(&version)?;
    let all = plan.instances;
    let mut measurement = Measurement { plan, cluster, folder };
    measurement.span("nobody", 0, None).await?;
    for client in ["agent", "sdk"] {
        for instances in [1, all] {
            measurement.client(client, instances).await?;
        }
    }
    Ok(())
}

struct Measurement {
    plan: Plan,
    cluster: Cluster,
    folder: PathBuf,
}

impl Measurement {
    async fn client(&mut self, client: &str, instances: u32) -> Result<()> {
        let name = format!("{client}-{instances}");
        let mut process = Child::start(&name, self.command(client, instances)?, &self.folder)?;
        let by = Instant::now() + 2 * PATIENCE;
        while self.cluster.leases().await? < instances as usize {
            let log = || process.said(10);
            ensure!(Instant::now() < by, "not all register; its log ends with:\n{}", log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let part = Part { name: "client", pid: process.pid()?, metrics: None };
        self.span(client, instances, Some(part)).await?;
        process.stop(PATIENCE).await?;
        // Leases that remain would be counted for the next client.
        ensure!(self.cluster.leases().await? == 0, "{name} has left Leases behind");
        Ok(())
    }

    /// Returns the command for a process with `instances` instances.
    fn command(&self, client: &str, instances: u32) -> Result<Command> {
        let kubeconfig = self.cluster.plane.kubeconfig();
        if client == "sdk" {
            let mut command = Command::new(std::env::current_exe()?);
            command.env("KUBECONFIG", kubeconfig).args(["sdk", &instances.to_string()]);
            return Ok(command);
        }
        let settings = self.folder.join(format!("agent-{instances}.yaml"));
        fs::write(&settings, settings_of(instances))?;
        let mut command = beatkeeper(&kubeconfig)?;
        command.args(["agent", "run", "--namespace", NAMESPACE, "--config"]).arg(settings);
        Ok(command)
    }

    /// Measures a client in steady state, and what the API server counts meanwhile.
    async fn span(&mut self, client: &str, instances: u32, process: Option<Part>) -> Result<()> {
        eprintln!("clients: {client} with {instances} instances");
        self.plan.instances = instances;
        let results = self.plan.results(System::Beatkeeper, String::new(), 1);
        tokio::time::sleep(self.plan.warm_up).await;
        let parts = Vec::from_iter([self.cluster.api_server().await?].into_iter().chain(process));
        record(&results, Edge::Began(client), &parts).await?;
        tokio::time::sleep(self.plan.steady).await;
        record(&results, Edge::Ended(client), &parts).await
    }
}

async fn record(results: &Results, edge: Edge<'_>, parts: &[Part]) -> Result<()> {
    meter::record_metrics(results, edge, parts).await?;
    parts.iter().try_for_each(|part| meter::record_usage(results, edge, part, None, None))
}

/// Returns the agent's settings file for `instances` instances.
fn settings_of(instances: u32) -> String {
    let line = |n| format!("- {{ instance: vm-{n}, addresses: [{}] }}\n", address_of(n));
    let head = format!("registration: {}\ninstances:\n", name_of(0));
    head + &(0..instances).map(line).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_an_agent_has_a_line_for_each_instance() {
        let wanted = "registration: bench-0\ninstances:\n\
                      - { instance: vm-0, addresses: [198.18.0.1] }\n\
                      - { instance: vm-1, addresses: [198.18.0.2] }\n";
        assert_eq!(settings_of(2), wanted);
    }
}

//! Measures the cost of clients: the agent and the SDK, each as a process with one instance and with many, on a
//! control plane without other load.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::metrics::{self, Sample};
use crate::plan::Plan;
use crate::process::{Server, Usage};
use crate::results;
use crate::system::System;
use crate::systems::control_plane::{Cluster, NAMESPACE, address_of, beatkeeper, name_of};

/// How long all instances together may take to register, or to deregister.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures all clients, and adds the results to the files of the folder.
///
/// # Errors
/// If a process fails, or a client does not register.
pub async fn measure(plan: Plan) -> Result<()> {
    let data = tempfile::Builder::new().prefix("beatkeeper-bench-").tempdir()?;
    let folder = data.path().to_owned();
    let cluster = Cluster::start(&plan.setup(folder.clone())).await?;
    let version = cluster.version() + ", without an operator";
    results::append_system(&plan.out, System::Beatkeeper, &version, "")?;
    let all = plan.instances;
    let mut measurement = Measurement { plan, cluster, folder };
    eprintln!("clients: none");
    measurement.plan.instances = 0;
    measurement.rest().await;
    measurement.span("nobody", None).await?;
    for client in ["agent", "sdk"] {
        for instances in [1, all] {
            measurement.plan.instances = instances;
            eprintln!("clients: {client} with {instances} instances");
            measurement.client(client).await?;
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
    async fn client(&self, client: &str) -> Result<()> {
        let instances = self.plan.instances;
        let name = format!("{client}-{instances}");
        let server = Server::start(&name, self.command(client, instances)?, &self.folder)?;
        let by = Instant::now() + PATIENCE;
        while self.cluster.leases().await? < instances as usize {
            let log = || server.log_tail();
            ensure!(Instant::now() < by, "not all register; its log ends with:\n{}", log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.rest().await;
        self.span(client, Some(server.pid())).await?;
        server.end().await?;
        // Leases that remain would be counted for the next client.
        ensure!(self.cluster.leases().await? == 0, "{name} has left Leases behind");
        Ok(())
    }

    /// Returns the command for a process with `instances` instances.
    fn command(&self, client: &str, instances: u32) -> Result<Command> {
        let kubeconfig = self.cluster.kubeconfig();
        if client == "sdk" {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("sdk").arg("--kubeconfig").arg(kubeconfig);
            command.args(["--instances", &instances.to_string()]);
            return Ok(command);
        }
        let settings = self.folder.join(format!("agent-{instances}.yaml"));
        fs::write(&settings, settings_of(instances))?;
        let mut command = beatkeeper(&kubeconfig)?;
        command.args(["agent", "run", "--namespace", NAMESPACE, "--config"]).arg(settings);
        Ok(command)
    }

    async fn rest(&self) {
        tokio::time::sleep(Duration::from_secs(self.plan.warm_up)).await;
    }

    /// Measures during a span.
    async fn span(&self, part: &str, pid: Option<u32>) -> Result<()> {
        let usage = || pid.map(Usage::of).transpose();
        let (requests, before, began) = (self.cluster.scrape().await?, usage()?, Instant::now());
        tokio::time::sleep(Duration::from_secs(self.plan.steady)).await;
        let (seconds, after) = (began.elapsed().as_secs_f64(), usage()?);
        let requests = requests_between(&requests, &self.cluster.scrape().await?);
        let run = self.plan.run(System::Beatkeeper, String::new(), 1);
        if let (Some(before), Some(after)) = (before, after) {
            let renewals =
                requests.iter().find(|(verb, kind, _)| verb == "patch" && kind == "leases");
            let used = json!({
                "part": part, "scenario": "steady", "seconds": seconds,
                "renewals": renewals.map_or(0.0, |(.., count)| count / seconds),
                "cpu": (after.cpu - before.cpu) / seconds, "rss": after.rss, "peak": after.peak,
                "received": null,
            });
            results::append(&self.plan.out, "usage", &[run.line(used)])?;
        }
        let line = |(verb, kind, count)| {
            run.line(json!({
                "part": part, "scenario": "steady", "verb": verb, "kind": kind, "seconds": seconds, "count": count,
            }))
        };
        let lines: Vec<_> = requests.into_iter().map(line).collect();
        results::append(&self.plan.out, "calls", &lines)
    }
}

/// Returns the agent's settings file for `instances` instances.
fn settings_of(instances: u32) -> String {
    let mut text = format!("registration: {}\ninstances:\n", name_of(0));
    for n in 0..instances {
        // Writing to a String never fails.
        let _ = writeln!(text, "- {{ instance: vm-{n}, addresses: [{}] }}", address_of(n));
    }
    text
}

/// Returns the API server's counts of requests, by verb and resource. It counts a watch when the watch ends, with
/// the watch's length.
fn requests_between(before: &[Sample], after: &[Sample]) -> Vec<(String, String, f64)> {
    metrics::growth(before, after, "apiserver_request_total", ["verb", "resource"])
        .into_iter()
        .filter(|([_, resource], _)| !resource.is_empty())
        .map(|([verb, resource], count)| (verb.to_lowercase(), resource, count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_verb_and_resource_and_those_for_none_are_not() {
        let page = "apiserver_request_total{code=\"200\",resource=\"leases\",verb=\"PATCH\"} 5\n\
                    apiserver_request_total{code=\"409\",resource=\"leases\",verb=\"PATCH\"} 1\n\
                    apiserver_request_total{code=\"200\",resource=\"\",verb=\"GET\"} 9\n";
        let requests = requests_between(&[], &metrics::samples(page));
        assert_eq!(requests, [("patch".to_owned(), "leases".to_owned(), 6.0)]);
    }

    #[test]
    fn the_file_of_an_agent_has_a_line_for_each_instance() {
        let wanted = "registration: bench-0\ninstances:\n\
                      - { instance: vm-0, addresses: [198.18.0.1] }\n\
                      - { instance: vm-1, addresses: [198.18.0.2] }\n";
        assert_eq!(settings_of(2), wanted);
    }
}

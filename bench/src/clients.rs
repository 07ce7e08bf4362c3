//! Measures the cost of clients: the agent and the SDK, each as a process with one instance and with many, on a
//! control plane without other load.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use crate::process::{Server, Usage};
use crate::records::cost::{Call, Expense};
use crate::records::{self, Run, System};
use crate::scrape::{self, Sums};
use crate::systems::beatkeeper::{NAMESPACE, Stage, address_of, beatkeeper, name_of};
use crate::systems::{Name, Setup};

/// How long all instances together may take to register, or to deregister.
const PATIENCE: Duration = Duration::from_secs(120);
/// The name in the results for the requests that the API server gets while no client runs.
pub const NOBODY: &str = "nobody";

/// What to measure.
#[derive(Debug, Args)]
pub struct Plan {
    /// The folder that the results are added to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The number of the run.
    #[arg(long, default_value_t = 1)]
    run: u32,
    /// How many instances a process has, by turns.
    #[arg(long, value_delimiter = ',', default_value = "1,1000")]
    instances: Vec<u32>,
    /// Seconds of silence after which one counts as dead.
    #[arg(long, default_value_t = 30)]
    ttl: u64,
    /// Seconds between two beats.
    #[arg(long, default_value_t = 10)]
    interval: u64,
    /// Seconds between the last registration and the measurement.
    #[arg(long, default_value_t = 20)]
    warm_up: u64,
    /// Seconds of steady state.
    #[arg(long, default_value_t = 60)]
    steady: u64,
}

/// A kind of client.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Agent,
    Sdk,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Sdk => "sdk",
        }
    }

    /// Returns the command for a process with `instances` instances.
    fn command(self, stage: &Stage, folder: &Path, instances: u32) -> Result<Command> {
        let kubeconfig = stage.kubeconfig();
        match self {
            Self::Agent => {
                let settings = folder.join(format!("agent-{instances}.yaml"));
                fs::write(&settings, settings_of(instances))?;
                let mut command = beatkeeper(&kubeconfig)?;
                command.args(["agent", "run", "--namespace", NAMESPACE, "--config"]).arg(settings);
                Ok(command)
            }
            Self::Sdk => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("sdk").arg("--kubeconfig").arg(kubeconfig);
                command.args(["--instances", &instances.to_string()]);
                Ok(command)
            }
        }
    }
}

/// Returns the agent's settings file for `instances` instances.
fn settings_of(instances: u32) -> String {
    let mut text = format!("registration: {}\ninstances:\n", name_of(0));
    for n in 0..instances {
        let address = address_of(n);
        // Writing to a String never fails.
        let _ = writeln!(text, "- {{ instance: vm-{n}, addresses: [{address}] }}");
    }
    text
}

/// Measures all clients, and adds the results to the files of the folder.
///
/// # Errors
/// If a process fails, or a client does not register.
pub async fn measure(plan: Plan) -> Result<()> {
    let data = tempfile::Builder::new().prefix("beatkeeper-bench-").tempdir()?;
    let setup = Setup {
        ttl: Duration::from_secs(plan.ttl),
        interval: Duration::from_secs(plan.interval),
        data: data.path().to_owned(),
        peers: None,
        services: 1,
        ballast: 0,
    };
    let stage = Stage::open(&setup).await?;
    let version = stage.version() + ", without an operator";
    let told = System { system: Name::Beatkeeper, version, absent: String::new() };
    records::append(&plan.out, &[told])?;
    let bench = Bench { plan, stage, folder: data.path().to_owned() };
    eprintln!("clients: nobody");
    bench.rest().await;
    bench.span(0, NOBODY, None).await?;
    for kind in [Kind::Agent, Kind::Sdk] {
        for &instances in &bench.plan.instances {
            eprintln!("clients: {} with {instances} instances", kind.as_str());
            bench.client(kind, instances).await?;
        }
    }
    Ok(())
}

struct Bench {
    plan: Plan,
    stage: Stage,
    folder: PathBuf,
}

impl Bench {
    async fn client(&self, kind: Kind, instances: u32) -> Result<()> {
        let command = kind.command(&self.stage, &self.folder, instances)?;
        let name = format!("{}-{instances}", kind.as_str());
        let client = Server::start(&name, command, &self.folder)?;
        self.until_there_are(instances, &client).await?;
        self.rest().await;
        self.span(instances, kind.as_str(), Some(client.pid())).await?;
        client.end().await?;
        // Leases that remain would be counted for the next client.
        ensure!(self.stage.leases().await? == 0, "{name} has left Leases behind");
        Ok(())
    }

    async fn rest(&self) {
        tokio::time::sleep(Duration::from_secs(self.plan.warm_up)).await;
    }

    async fn until_there_are(&self, instances: u32, client: &Server) -> Result<()> {
        let by = Instant::now() + PATIENCE;
        while self.stage.leases().await? < instances as usize {
            ensure!(Instant::now() < by, "not all register; its log ends with:\n{}", client.said());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Measures during a span.
    async fn span(&self, instances: u32, part: &str, pid: Option<u32>) -> Result<()> {
        let usage = || pid.map(Usage::of).transpose();
        let (requests, before, began) = (self.requests().await?, usage()?, Instant::now());
        tokio::time::sleep(Duration::from_secs(self.plan.steady)).await;
        let (seconds, after) = (began.elapsed().as_secs_f64(), usage()?);
        let requests = scrape::growth(&requests, self.requests().await?);
        let run = Run {
            system: Name::Beatkeeper,
            variant: String::new(),
            instances,
            beats_per_second: f64::from(instances) / self.plan.interval as f64,
            run: self.plan.run,
        };
        if let (Some(before), Some(after)) = (before, after) {
            let beats = ["patch".to_owned(), "leases".to_owned()];
            let beats = requests.get(&beats).copied().unwrap_or_default();
            let expense = Expense::of(
                &run,
                part.to_owned(),
                "steady".to_owned(),
                seconds,
                beats / seconds,
                (after.cpu - before.cpu) / seconds,
                after.rss,
                after.peak,
                None,
                None,
            );
            records::append(&self.plan.out, &[expense])?;
        }
        let line = |([verb, kind], count): ([String; 2], f64)| {
            Call::of(&run, part.to_owned(), "steady".to_owned(), verb, kind, seconds, count)
        };
        records::append(&self.plan.out, &requests.into_iter().map(line).collect::<Vec<_>>())
    }

    /// Returns the requests for resources so far, by verb and resource.
    async fn requests(&self) -> Result<Sums<2>> {
        Ok(by_verb_and_resource(&self.stage.scrape().await?))
    }
}

/// Returns the API server's counts of requests for resources. It counts a watch when the watch ends, with the
/// watch's length.
fn by_verb_and_resource(samples: &[scrape::Sample]) -> Sums<2> {
    scrape::sums(samples, "apiserver_request_total", ["verb", "resource"])
        .into_iter()
        .filter(|([_, resource], _)| !resource.is_empty())
        .map(|([verb, resource], count)| ([verb.to_lowercase(), resource], count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_by_verb_and_resource_and_those_for_none_are_not() {
        let page = "apiserver_request_total{code=\"200\",resource=\"leases\",verb=\"PATCH\"} 5\n\
                    apiserver_request_total{code=\"409\",resource=\"leases\",verb=\"PATCH\"} 1\n\
                    apiserver_request_total{code=\"200\",resource=\"\",verb=\"GET\"} 9\n";
        let told = by_verb_and_resource(&scrape::samples(page));
        assert_eq!(told, [(["patch".to_owned(), "leases".to_owned()], 6.0)].into());
    }

    #[test]
    fn the_file_of_an_agent_has_a_line_for_each_instance() {
        let wanted = "registration: bench-0\ninstances:\n\
                      - { instance: vm-0, addresses: [198.18.0.1] }\n\
                      - { instance: vm-1, addresses: [198.18.0.2] }\n";
        assert_eq!(settings_of(2), wanted);
    }
}

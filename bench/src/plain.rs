//! Measures how long plain Kubernetes publishes dead endpoints: of a Pod that hangs, and of all Pods of a node that
//! dies.
//!
//! It runs on a node of tests/node, where this process sees the node's processes. It causes deaths by signals, so
//! their times are known exactly.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use beatkeeper_test_support::{History, Select, SliceObserver};
use clap::Args;
use futures::future::try_join_all;
use kube::{Api, Client};
use rand::Rng;
use serde_json::{Value, json};

use crate::process::Stopped;
use crate::results;

mod node;
mod workload;

use workload::{NAME, Pod, REPLICAS};

/// The kubelet's default time between two probes, and between two beats for its node.
const PERIOD: Duration = Duration::from_secs(10);
/// The timeout for what takes a minute by default, and for Pods that start or resume.
const PATIENCE: Duration = Duration::from_secs(180);

/// What to measure. To be run by `beatkeeper-node exec`.
#[derive(Debug, Args)]
pub struct Plan {
    /// The folder that the results are added to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// So many Pods hang, at most ten, each for itself at a random moment.
    #[arg(long, default_value_t = REPLICAS)]
    hangs: usize,
    /// So many times the node dies.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Image of what runs in the Pods: tests/node/images/greeter.
    #[arg(
        long,
        env = "BEATKEEPER_GREETER_IMAGE",
        default_value = "localhost/beatkeeper/greeter:test"
    )]
    image: String,
}

/// Measures, and adds the results to the files of the folder. Stopped processes are resumed afterwards.
///
/// # Errors
/// If there is no such node, or something expected does not happen.
pub async fn measure(plan: Plan) -> Result<()> {
    let kubelet = node::kubelet()?;
    let client = workload::create(&plan.image).await?;
    let slices = Api::namespaced(client.clone(), NAME);
    let observer = SliceObserver::of_service(slices, NAME, Select::Ready).await?;
    let measurement = Measurement { plan, kubelet, client, observer };
    let played = measurement.play().await;
    let removed = workload::remove(&measurement.client).await;
    played.and(removed)
}

struct Measurement {
    plan: Plan,
    kubelet: u32,
    client: Client,
    observer: SliceObserver,
}

impl Measurement {
    async fn play(&self) -> Result<()> {
        self.all_ready().await?;
        let pods = workload::pods(&self.client).await?;
        let hangs = pods.iter().take(self.plan.hangs).enumerate();
        let lines = try_join_all(hangs.map(|(death, pod)| self.hang(death + 1, pod))).await?;
        self.record(&lines)?;
        for death in 1..=self.plan.nodes {
            self.all_ready().await?;
            let lines = self.node_dies(death).await?;
            self.record(&lines)?;
        }
        Ok(())
    }

    async fn hang(&self, death: usize, pod: &Pod) -> Result<Value> {
        at_a_random_phase().await;
        let stopped = Stopped::now(node::processes_of(pod)?)?;
        eprintln!("plain: {} hangs", pod.name);
        self.line("hang", death, pod, stopped.since).await
    }

    /// Stops the kubelet and its Pods: no process is left that could report their state.
    async fn node_dies(&self, death: usize) -> Result<Vec<Value>> {
        let pods = workload::pods(&self.client).await?;
        at_a_random_phase().await;
        let mut all = vec![self.kubelet];
        for pod in &pods {
            all.extend(node::processes_of(pod)?);
        }
        let stopped = Stopped::now(all)?;
        eprintln!("plain: the node dies with {} Pods", pods.len());
        try_join_all(pods.iter().map(|pod| self.line("node", death, pod, stopped.since))).await
    }

    /// Waits until an endpoint of a Pod that died is not ready.
    async fn line(&self, how: &str, death: usize, pod: &Pod, since: Instant) -> Result<Value> {
        let Pod { name, address, .. } = pod;
        let what = format!("{address} is no longer ready in the slices");
        let left = |history: &History| history.since(address, false).filter(|left| *left > since);
        let left = self.observer.until(&what, PATIENCE, left).await?;
        let seconds = left.duration_since(since).as_secs_f64();
        eprintln!("plain: {name} is no longer ready after {seconds:.1} s");
        Ok(json!({ "death": death, "how": how, "pod": name, "seconds": seconds }))
    }

    fn record(&self, lines: &[Value]) -> Result<()> {
        let interruptions = self.observer.look(History::interruptions);
        ensure!(interruptions == 0, "the watch of the slices broke, so the times are not exact");
        results::append(&self.plan.out, "plain", lines)
    }

    async fn all_ready(&self) -> Result<()> {
        let ready = |history: &History| (history.published().len() == REPLICAS).then_some(());
        let what = format!("{REPLICAS} addresses are ready in the slices");
        self.observer.until(&what, PATIENCE, ready).await.context("not all Pods are ready")
    }
}

/// Waits for a random time within a period, so that a death falls into any phase of a periodic task.
async fn at_a_random_phase() {
    tokio::time::sleep(PERIOD.mul_f64(rand::rng().random_range(0.0..1.0))).await;
}

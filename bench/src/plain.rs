//! Measures how long plain Kubernetes publishes dead endpoints: of a Pod that hangs, and of all Pods of a node that
//! dies.
//!
//! It runs on a node of tests/node, where this process sees the node's processes. It causes deaths by signals, so
//! their times are known exactly.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use futures::future::try_join_all;
use rand::Rng;

use crate::records;
use crate::records::plain::{How, Out};

mod node;
mod stage;
mod witness;

use node::Node;
use stage::{Pod, Stage};
use witness::Witness;

/// The kubelet's default time between two probes.
const PROBES: Duration = Duration::from_secs(10);
/// The kubelet's default time between two beats for its node.
const NODE_BEATS: Duration = Duration::from_secs(10);

/// What to measure. To be run by `beatkeeper-node exec`.
#[derive(Debug, Args)]
pub struct Plan {
    /// The folder that the results are added to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// So many Pods hang, each for itself at a random moment.
    #[arg(long, default_value_t = 10)]
    hangs: u32,
    /// So many times the node dies.
    #[arg(long, default_value_t = 1)]
    nodes: u32,
    /// How many Pods there are, which hang side by side.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    replicas: u32,
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
    let node = Node::find()?;
    let stage = Stage::open(plan.replicas, &plan.image).await?;
    let witness = stage.witness();
    let driver = Driver { plan, node, stage, witness };
    let played = driver.play().await;
    let closed = driver.stage.close().await;
    played.and(closed)
}

struct Driver {
    plan: Plan,
    node: Node,
    stage: Stage,
    witness: Witness,
}

impl Driver {
    async fn play(&self) -> Result<()> {
        self.all_ready().await?;
        let mut hung = 0;
        while hung < self.plan.hangs {
            let pods = self.stage.pods().await?;
            let deaths = (hung + 1..=self.plan.hangs).zip(&pods);
            let outs = try_join_all(deaths.map(|(death, pod)| self.hang(death, pod))).await?;
            records::append(&self.plan.out, &outs)?;
            hung += u32::try_from(outs.len())?;
            self.all_ready().await?;
        }
        for death in 1..=self.plan.nodes {
            let outs = self.node_dies(death).await?;
            records::append(&self.plan.out, &outs)?;
            self.all_ready().await?;
        }
        Ok(())
    }

    async fn hang(&self, death: u32, pod: &Pod) -> Result<Out> {
        somewhen_within(PROBES).await;
        let stopped = self.node.stop_pod(pod)?;
        eprintln!("plain: {} hangs", pod.name);
        let left = self.witness.left(&pod.address, stopped.since).await?;
        Ok(out(How::Hang, death, pod, left.seconds_after(stopped.since)))
    }

    async fn node_dies(&self, death: u32) -> Result<Vec<Out>> {
        let pods = self.stage.pods().await?;
        somewhen_within(NODE_BEATS).await;
        let stopped = self.node.stop(&pods)?;
        eprintln!("plain: the node dies with {} Pods", pods.len());
        let outs = pods.iter().map(async |pod| {
            let left = self.witness.left(&pod.address, stopped.since).await?;
            Ok(out(How::Node, death, pod, left.seconds_after(stopped.since)))
        });
        try_join_all(outs).await
    }

    async fn all_ready(&self) -> Result<()> {
        self.witness.until_ready(self.plan.replicas as usize).await
    }
}

fn out(how: How, death: u32, pod: &Pod, seconds: f64) -> Out {
    eprintln!("plain: {} is no longer ready after {seconds:.1} s", pod.name);
    Out { death, how, pod: pod.name.clone(), seconds }
}

/// Waits for a random time within a period, so that a death falls into any phase of a periodic task.
async fn somewhen_within(period: Duration) {
    let wait = period.mul_f64(rand::rng().random_range(0.0..1.0));
    tokio::time::sleep(wait).await;
}

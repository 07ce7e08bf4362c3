//! How long plain Kubernetes publishes what is dead: a Pod that hangs, and all Pods of a node that dies.
//!
//! On a node of tests/node, whose processes this one sees: deaths are signals, at moments that are known exactly.

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

/// Between two probes of the kubelet, by default.
const PROBES: Duration = Duration::from_secs(10);
/// Between two beats of the kubelet for its node, by default.
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

/// Measures, and adds the results to the files of the folder. Whatever was stopped goes on afterwards.
///
/// # Errors
/// Where there is no such node, or when something does not happen that was waited for.
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

/// So that a death falls into any phase of what happens once in a period.
async fn somewhen_within(period: Duration) {
    let wait = period.mul_f64(rand::rng().random_range(0.0..1.0));
    tokio::time::sleep(wait).await;
}

//! Runs the loader and the watcher as processes of their own, and receives their events.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use beatkeeper_cluster::die_with_this_thread;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::time::{timeout, timeout_at};
use tokio_util::codec::{FramedRead, LinesCodec};

use crate::messages::{Event, Order};
use crate::system::Setup;

/// How long the two processes may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

type Reports = BoxStream<'static, Result<Event>>;

/// The two processes. They end when this value is dropped.
pub struct Workers {
    orders: ChildStdin,
    events: Reports,
    _children: [Child; 2],
}

impl Workers {
    /// Starts first the watcher, so that it sees everything from the beginning, then the loader.
    pub async fn start(setup: &Setup, address: &str) -> Result<Self> {
        let (watcher, seen) = start("watch", setup, address).await?;
        let (mut loader, done) = start("load", setup, address).await?;
        let orders = loader.stdin.take().context("the loader has no stdin")?;
        let events = stream::select(seen, done).boxed();
        Ok(Self { orders, events, _children: [watcher, loader] })
    }

    /// Gives the loader an order.
    pub async fn order(&mut self, order: &Order) -> Result<()> {
        let line = serde_json::to_string(order)? + "\n";
        self.orders.write_all(line.as_bytes()).await.context("the loader has ended")
    }

    /// Returns the next event of either process, or `None` if there is none until `by`.
    pub async fn next(&mut self, by: Instant) -> Result<Option<Event>> {
        match timeout_at(by.into(), self.events.next()).await {
            Ok(event) => event.transpose(),
            Err(_) => Ok(None),
        }
    }
}

/// Starts a process, and waits until it is ready.
async fn start(role: &'static str, setup: &Setup, address: &str) -> Result<(Child, Reports)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([role, &serde_json::to_string(setup)?, address]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    die_with_this_thread(&mut command, true);
    let mut child = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start to {role}"))?;
    let out = child.stdout.take().context("it has no stdout")?;
    let lines = FramedRead::new(out, LinesCodec::new());
    let events = lines.map(|line| Ok(serde_json::from_str(&line?)?));
    // Without either process, nothing can be measured.
    let end = async move { Err(anyhow!("the process that was to {role} has ended")) };
    let mut events = events.chain(stream::once(end)).boxed();
    match timeout(PATIENCE, events.next()).await {
        Ok(Some(Ok(Event::Ready))) => Ok((child, events)),
        other => bail!("the process that is to {role} begins with {other:?}"),
    }
}

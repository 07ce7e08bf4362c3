//! Runs the loader and the watcher as processes of their own, and receives their events.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use beatkeeper_cluster::die_with_this_thread;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};

use crate::messages::{Event, Order};
use crate::system::{Setup, System};

/// How long the two processes may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// The two processes. They end when this value is dropped.
pub struct Workers {
    orders: ChildStdin,
    events: mpsc::UnboundedReceiver<Result<Event>>,
    _children: [Child; 2],
}

impl Workers {
    /// Starts first the watcher, so that it sees everything from the beginning, then the loader.
    pub async fn start(system: System, address: &str, setup: &Setup) -> Result<Self> {
        let (tell, mut events) = mpsc::unbounded_channel();
        let watcher = start("watch", system, address, setup, &tell)?;
        ready(&mut events, "watcher").await?;
        let mut loader = start("load", system, address, setup, &tell)?;
        ready(&mut events, "loader").await?;
        let orders = loader.stdin.take().context("the loader has no stdin")?;
        Ok(Self { orders, events, _children: [watcher, loader] })
    }

    /// Gives the loader an order.
    pub async fn order(&mut self, order: &Order) -> Result<()> {
        let line = serde_json::to_string(order)? + "\n";
        self.orders.write_all(line.as_bytes()).await.context("the loader has ended")
    }

    /// Returns the next event of either process, or `None` if there is none until `by`.
    pub async fn next(&mut self, by: Instant) -> Result<Option<Event>> {
        match timeout_at(by.into(), self.events.recv()).await {
            Ok(Some(event)) => event.map(Some),
            Ok(None) => bail!("loader and watcher have ended"),
            Err(_) => Ok(None),
        }
    }
}

fn start(
    role: &'static str,
    system: System,
    address: &str,
    setup: &Setup,
    tell: &mpsc::UnboundedSender<Result<Event>>,
) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([role, "--system", &system.to_string(), "--address", address])
        .args(["--ttl", &setup.ttl.as_secs().to_string()])
        .args(["--interval", &setup.interval.as_secs().to_string()])
        .args(["--services", &setup.services.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    die_with_this_thread(&mut command, true);
    let mut child = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start to {role}"))?;
    let out = child.stdout.take().context("it has no stdout")?;
    let tell = tell.clone();
    tokio::spawn(async move {
        let mut lines = BufReader::new(out).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let event = serde_json::from_str(&line).with_context(|| format!("no event: {line}"));
            let _ = tell.send(event);
        }
        // Without either process, nothing can be measured.
        let _ = tell.send(Err(anyhow::anyhow!("the process that was to {role} has ended")));
    });
    Ok(child)
}

async fn ready(events: &mut mpsc::UnboundedReceiver<Result<Event>>, who: &str) -> Result<()> {
    match timeout(PATIENCE, events.recv()).await {
        Ok(Some(Ok(Event::Ready))) => Ok(()),
        Ok(Some(Ok(other))) => bail!("the {who} begins with {other:?}"),
        Ok(Some(Err(error))) => Err(error),
        Ok(None) | Err(_) => bail!("the {who} is not ready after {PATIENCE:?}"),
    }
}

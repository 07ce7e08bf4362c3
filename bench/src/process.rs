//! Processes: waiting for servers, free ports, and signals.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use beatkeeper_cluster::Child;
use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to start, or to end.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a server answers.
///
/// # Errors
/// If it does not answer within 60 s. The error contains the end of its log.
pub async fn until_it_answers(server: &Child, ask: impl AsyncFn() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    while let Err(error) = ask().await {
        if began.elapsed() > PATIENCE {
            bail!("it does not answer: {error:#}; its log ends with:\n{}", server.said(10))
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Returns a port of 127.0.0.1 that is free now.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// Suspends a process (SIGSTOP), or resumes it (SIGCONT).
pub fn freeze(pid: u32, frozen: bool) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no process")?;
    kill_process(pid, if frozen { Signal::STOP } else { Signal::CONT })?;
    Ok(())
}

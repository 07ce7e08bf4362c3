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

/// Suspended processes (SIGSTOP). They are resumed when this value is dropped.
pub struct Stopped {
    /// When the processes were suspended.
    pub since: Instant,
    processes: Vec<Pid>,
}

impl Stopped {
    /// Suspends processes.
    pub fn now(processes: impl IntoIterator<Item = u32>) -> Result<Self> {
        let mut stopped = Self { since: Instant::now(), processes: Vec::new() };
        for process in processes {
            let process = Pid::from_raw(i32::try_from(process)?).context("no process")?;
            kill_process(process, Signal::STOP)?;
            stopped.processes.push(process);
        }
        Ok(stopped)
    }
}

impl Drop for Stopped {
    /// The first process is resumed last: a kubelet sees its Pods again when they run.
    fn drop(&mut self) {
        for &process in self.processes.iter().rev() {
            let _ = kill_process(process, Signal::CONT);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use procfs::process::Process;

    use super::*;

    #[test]
    fn stopped_processes_are_resumed_when_the_value_is_dropped() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = Process::new(child.id() as i32).unwrap();
        let wait_for = |stopped: bool| {
            let began = Instant::now();
            while (process.stat().unwrap().state == 'T') != stopped {
                assert!(began.elapsed().as_secs() < 10, "{:?}", process.stat());
                std::thread::yield_now();
            }
        };
        let stopped = Stopped::now([child.id()]).unwrap();
        wait_for(true);
        drop(stopped);
        wait_for(false);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

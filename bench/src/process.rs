//! Processes: servers, the loader and the watcher, and the resources that they use.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use beatkeeper_cluster::die_with_this_thread;
use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server as a child process. It is killed when this value is dropped, and by the kernel when this process ends.
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a server that writes its log into a folder. Call it on `main`'s own thread: the kernel kills the
    /// server when this thread ends.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = die_with_this_thread(&mut command, true).spawn();
        let child = child.with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self { child, log })
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the server.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Whether the server has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Asks the server to end (SIGTERM), and returns once it has ended.
    ///
    /// # Errors
    /// If the server does not end within 60 s. The error contains the end of its log.
    pub async fn end(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let began = Instant::now();
        while !self.has_ended()? {
            let in_time = began.elapsed() < PATIENCE;
            ensure!(in_time, "it does not end; its log ends with:\n{}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Waits until the server answers.
    ///
    /// # Errors
    /// If it does not answer within 60 s. The error contains the end of its log.
    pub async fn until_it_answers(&self, ask: impl AsyncFn() -> Result<()>) -> Result<()> {
        let began = Instant::now();
        while let Err(error) = ask().await {
            if began.elapsed() > PATIENCE {
                bail!("it does not answer: {error:#}; its log ends with:\n{}", self.log_tail())
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Returns the last lines of the log.
    pub fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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

/// The resources that a process has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Seconds of processor time, user and system.
    pub cpu: f64,
    /// The memory that the process uses now, in MiB.
    pub rss: f64,
    /// The maximum memory that the process has used, in MiB.
    pub peak: f64,
}

impl Usage {
    /// Reads the usage of a running process.
    pub fn of(pid: u32) -> Result<Self> {
        let process = procfs::process::Process::new(i32::try_from(pid)?)?;
        let (stat, status) = (process.stat()?, process.status()?);
        let mib = |kib: Option<u64>| Some(kib? as f64 / 1024.0);
        let ticks = stat.utime + stat.stime;
        Ok(Self {
            cpu: ticks as f64 / procfs::ticks_per_second() as f64,
            rss: mib(status.vmrss).context("the process has ended")?,
            peak: mib(status.vmhwm).context("the process has ended")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_run_has_no_usage() {
        assert!(Usage::of(u32::MAX).is_err());
        assert!(Usage::of(std::process::id()).unwrap().rss > 0.0);
    }
}

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
        let program = command.get_program().to_owned();
        let child = die_with_this_thread(&mut command, true)
            .spawn()
            .with_context(|| format!("cannot start {}", Path::new(&program).display()))?;
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
            ensure!(
                began.elapsed() < PATIENCE,
                "it does not end; its log ends with:\n{}",
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Returns the last lines of the log.
    pub fn said(&self) -> String {
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

/// Waits until a server answers.
///
/// # Errors
/// If the server does not answer within 60 s. The error contains the end of its log.
pub async fn until_it_answers(server: &Server, ask: impl AsyncFn() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(()) => return Ok(()),
            Err(error) if began.elapsed() > PATIENCE => {
                bail!("it does not answer: {error:#}; its log ends with:\n{}", server.said())
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
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
#[derive(Debug, Clone, Copy, PartialEq)]
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
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/{pid}/{file}"))
                .with_context(|| format!("process {pid} does not run"))
        };
        Self::read(&read("stat")?, &read("status")?).context("cannot read /proc")
    }

    fn read(stat: &str, status: &str) -> Option<Self> {
        // The name of the program may contain spaces and parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        let mib = |name: &str| -> Option<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
        };
        let per_second = rustix::param::clock_ticks_per_second();
        Some(Self {
            cpu: ticks as f64 / per_second as f64,
            rss: mib("VmRSS:")?,
            peak: mib("VmHWM:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_whatever_the_program_is_called() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 0 0 0 0 0 250 50 0 0 20 0 9 0 1 1 1";
        let status = "Name:\tx\nVmHWM:\t    4096 kB\nVmRSS:\t    2048 kB\n";
        let usage = Usage::read(stat, status).unwrap();
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(usage, Usage { cpu: 300.0 / per_second, rss: 2.0, peak: 4.0 });
    }

    #[test]
    fn a_process_that_does_not_run_has_no_usage() {
        assert!(Usage::of(u32::MAX).is_err());
        assert!(Usage::of(std::process::id()).unwrap().rss > 0.0);
    }
}

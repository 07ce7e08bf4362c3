//! A child process with a log, for programs that use a control plane: operators, agents and servers beside it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use crate::process::die_with_this_thread;

/// A real process. It is killed when this value is dropped, and by the kernel when this process ends.
pub struct Child {
    name: String,
    child: tokio::process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts a process that appends to a log in the folder `logs`. Earlier processes of the same name wrote to the
    /// same log.
    ///
    /// Call it on `main`'s own thread: the kernel kills the process when this thread ends.
    pub fn start(name: &str, mut command: Command, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let program = command.get_program().to_owned();
        // The process gets a group of its own: Ctrl-C reaches only us, and we stop the others in order.
        die_with_this_thread(&mut command, true);
        let child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", Path::new(&program).display()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Returns the process id.
    ///
    /// # Errors
    /// If the process has ended, and its end was noticed.
    pub fn pid(&self) -> Result<u32> {
        self.child.id().with_context(|| format!("{} has ended by itself", self.name))
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid()?)?).context("process 0")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Sends SIGKILL, and returns once the process has ended: it can do nothing more.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Sends SIGTERM, which asks the process to end, and kills it if it does not end within `grace`.
    ///
    /// # Errors
    /// If the process had to be killed. The error contains the end of its log.
    pub async fn stop(&mut self, grace: Duration) -> Result<ExitStatus> {
        if self.pid().is_ok() {
            self.signal(Signal::TERM)?;
        }
        match timeout(grace, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => {
                self.kill().await?;
                let (name, said) = (&self.name, self.said(10));
                bail!("{name} did not end within {grace:?} of SIGTERM; its log ends with:\n{said}")
            }
        }
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Returns once the process has ended.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// Returns at most the last `lines` lines that the process has written.
    pub fn said(&self, lines: usize) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Returns the path of the process's log.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

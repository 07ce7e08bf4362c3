//! The processes of the demo: the operator and the instances that beat.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use beatkeeper_cluster::die_with_this_thread;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::time::timeout;

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// A real process. It is killed when this value is dropped, and by the kernel when this process ends.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a process that appends to a log below `logs`. Earlier processes of the same name wrote to the same
    /// log.
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

    /// Returns the process id, or `None` once the process has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends SIGKILL: the process can do nothing more.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Sends SIGTERM, which asks the process to end, and kills it if it does not.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            kill_process(pid, Signal::TERM)
                .with_context(|| format!("cannot stop {}", self.name))?;
        }
        match timeout(GRACE, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => {
                self.kill().await?;
                anyhow::bail!("{} did not end within {} s of SIGTERM", self.name, GRACE.as_secs())
            }
        }
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

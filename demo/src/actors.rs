//! The processes on the stage: the operator and the instances that beat.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use beatkeeper_cluster::die_with_this_thread;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::time::timeout;

/// How long a process may take to end in good order.
const GRACE: Duration = Duration::from_secs(5);

/// A real process. It is killed when dropped, and by the kernel when this process is.
pub struct Actor {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Actor {
    /// Starts a process that writes to a log below `logs`, after what an earlier one of its name wrote.
    ///
    /// To be called on `main`'s own thread, to which the kernel ties the process's life.
    pub fn start(name: &str, mut command: Command, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let program = command.get_program().to_owned();
        // A group of its own: a Ctrl-C reaches us alone, and we stop the others in order.
        die_with_this_thread(&mut command, true);
        let child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", Path::new(&program).display()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The id of the process; none once it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// SIGKILL: it has no chance to do anything more.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// SIGTERM: it is asked to end, and killed if it does not.
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

    /// Returns once it has ended.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// What it has written, at most the last `lines` lines of it.
    pub fn said(&self, lines: usize) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

//! `beatkeeper agent` as a process that can be suspended.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use crate::support::{TestNamespace, Usage, eventually, operator::spawn_from_keeper};

/// A running agent. It is killed when this is dropped.
pub struct Agent {
    child: Child,
    said: NamedTempFile,
}

impl Agent {
    pub fn start(ns: &TestNamespace, instance: &str, address: &str) -> Self {
        Self::start_with(ns, &["--instance", instance, "--address", address])
    }

    /// Starts `agent run` with these flags, outside any Pod.
    pub fn start_with(ns: &TestNamespace, flags: &[&str]) -> Self {
        Self::start_to(ns, "run", flags)
    }

    /// Starts an agent with the action `run` or `proxy`.
    pub fn start_to(ns: &TestNamespace, action: &str, flags: &[&str]) -> Self {
        let said = NamedTempFile::new().unwrap();
        let output = || Stdio::from(File::options().append(true).open(said.path()).unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_beatkeeper"));
        command
            .args(["agent", action, "--registration", "greeter", "--namespace", &ns.name])
            .args(flags)
            .env_remove("POD_NAME")
            .env("KUBECONFIG", ns.plane.kubeconfig())
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output());
        Self { child: spawn_from_keeper(command), said }
    }

    /// The resources that the agent has used so far.
    pub fn used(&self) -> Usage {
        Usage::of(&self.child.id().to_string())
    }

    /// Sends a signal such as SIGSTOP or SIGCONT.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The exit code of an agent that ends by itself.
    pub async fn exit_code(&mut self) -> Option<i32> {
        eventually("the agent ends", async || self.child.try_wait().unwrap()).await.code()
    }

    /// All output of the agent so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.said.path()).unwrap()
    }

    /// Waits until the output contains a text.
    pub async fn says(&self, text: &str) {
        eventually(&format!("the agent says {text:?}"), async || {
            self.said().contains(text).then_some(())
        })
        .await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the agent has said:\n{}", self.said());
        }
    }
}

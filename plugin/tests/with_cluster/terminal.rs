//! A real terminal: tmux shows what a person would see.

use std::{
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::stage::{Stage, eventually};

/// A terminal in which the plugin runs. It ends when this is dropped.
pub struct Terminal {
    socket: String,
}

impl Terminal {
    /// Opens a terminal of 110 columns and 24 rows.
    pub fn open(stage: &Stage, words: &[&str]) -> Self {
        // A terminal that ends may still remove its socket when the next one of the stage begins.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let terminal = Self { socket: format!("beatkeeper-{}-{number}", stage.namespace) };
        let config = stage.plane.kubeconfig();
        let mut command = vec!["new-session", "-d", "-x", "110", "-y", "24", "-s", "view"];
        let kubeconfig = format!("KUBECONFIG={}", config.display());
        command.extend(["env", &kubeconfig, env!("CARGO_BIN_EXE_kubectl-beatkeeper")]);
        command.extend(words);
        command.extend(["--namespace", &stage.namespace]);
        assert!(terminal.tmux(&command).status.success(), "tmux does not start");
        terminal
    }

    fn tmux(&self, words: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.socket, "-f", "/dev/null"]).args(words);
        command.env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color").stdin(Stdio::null());
        command.output().expect("tmux is missing: scripts/tools test says how to install it")
    }

    /// What is seen.
    pub fn seen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p", "-t", "view"]);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Presses a key, as tmux names it; longer text is typed.
    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", "-t", "view", key]);
    }

    /// Waits until what is seen is as wanted.
    pub fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        eventually(what, || {
            let seen = self.seen();
            if wanted(&seen) { Ok(seen) } else { Err(format!("\n{seen}")) }
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

//! The live view in a real terminal: tmux shows what a person would see.

use std::{
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::stage::{PATIENCE, Stage};

/// How much later than an idle machine a busy one may show something.
const BUSY: Duration = Duration::from_secs(5);

/// A terminal in which the plugin runs. It ends when this is dropped.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// Opens a terminal of 110 columns and 24 rows.
    fn open(stage: &Stage, words: &[&str]) -> Self {
        let terminal = Self { socket: format!("beatkeeper-{}", stage.namespace) };
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
    fn seen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p", "-t", "view"]);
        String::from_utf8(output.stdout).unwrap()
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", "-t", "view", key]);
    }

    /// Waits until what is seen is as wanted.
    fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let seen = self.seen();
            if wanted(&seen) {
                return seen;
            }
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}:\n{seen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[tokio::test]
async fn the_live_view_shows_a_death_within_a_second_of_its_ttl_and_follows_keys() {
    let mut stage = Stage::new("live").await;
    stage.register("greeter", "");
    stage.agent("vm-1", "192.0.2.11");
    stage.agent("vm-2", "192.0.2.12");
    let terminal = Terminal::open(&stage, &["get", "greeter", "--watch"]);
    let seen = terminal.until("both are ready", |seen| seen.contains("2 of 2 instances ready"));
    assert!(seen.contains("● Ready     vm-1"), "{seen}");
    let killed = stage.kill("vm-2");
    terminal.until("the death is seen", |seen| seen.contains("✗ Expired   vm-2"));
    let took = killed.elapsed();
    // The ttl is 3 s, and the last beat came at most an interval before the kill.
    assert!(took < Duration::from_secs(4) + BUSY, "seen {took:?} after the kill");
    println!("the death was seen {took:?} after the kill");
    terminal.press("p");
    terminal.until("only problems are shown", |seen| !seen.contains("vm-1"));
    terminal.press("p");
    terminal.until("all are shown again", |seen| seen.contains("● Ready     vm-1"));
    terminal.press("q");
    terminal.until("the view has ended", |seen| !seen.contains("vm-1"));
}

#[tokio::test]
async fn without_a_terminal_each_change_is_a_line() {
    use std::io::{BufRead, BufReader};
    let mut stage = Stage::new("lines").await;
    stage.register("greeter", "");
    stage.agent("vm-1", "192.0.2.11");
    stage.until(&["get"], "it is ready", |tree| tree.contains("1 of 1 instance ready"));
    let mut command = stage.command(&["get", "-w"]);
    command.stdout(Stdio::piped());
    let mut watch = crate::stage::spawn(command);
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = |wanted: &str| {
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains(wanted));
        assert!(line.is_some(), "no line about {wanted}");
    };
    next("vm-1 Ready (Beating)");
    stage.kill("vm-1");
    next("vm-1 Expired (TTLPassed)");
    stage.kubectl(&["delete", "lease", "greeter.vm-1"]);
    next("vm-1: gone");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

//! The live view in a real terminal: tmux shows what a person would see.

use std::{process::Stdio, time::Duration};

use crate::{stage::Stage, terminal::Terminal};

/// How much later than an idle machine a busy one may show something.
const BUSY: Duration = Duration::from_secs(5);

#[tokio::test]
async fn the_live_view_shows_a_death_within_a_second_of_its_ttl_and_follows_keys() {
    let mut stage = Stage::new("live").await;
    stage.register("greeter", "");
    stage.agent("vm-1", "192.0.2.11");
    stage.agent("vm-2", "192.0.2.12");
    let terminal = Terminal::open(&stage, &["get", "greeter", "--watch"]);
    terminal.until("both are ready", |seen| {
        seen.contains("2 of 2 instances ready") && seen.contains("● Ready     vm-1")
    });
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

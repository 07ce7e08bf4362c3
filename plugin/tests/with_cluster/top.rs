//! `top` follows instances that beat and one that stops.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::Value;

use crate::{
    stage::{ANN, Stage},
    terminal::Terminal,
};

#[tokio::test]
async fn the_table_shows_how_much_instances_beat_and_which_one_is_late() {
    let mut stage = Stage::new("top").await;
    stage.declare("greeter", "8s", "2s");
    stage.agent("vm-1", "192.0.2.11");
    stage.agent("vm-2", "192.0.2.12");
    let table = stage.until(&["top"], "both beat in time, every two seconds", |table| {
        table.contains("greeter  2          2      0        1.00")
    });
    assert!(
        table.starts_with("NAME     INSTANCES  READY  OVERDUE  BEATS(/s)  NEXT DEADLINE\n"),
        "{table}"
    );
    stage.kill("vm-2");
    let json = stage.until(&["top", "-o", "json"], "vm-2 is late", |json| {
        let report: Value = serde_json::from_str(json).unwrap_or_default();
        // On a busy machine both may be late.
        report["items"][0]["overdue"] != 0 && report["items"][0]["nextInstance"] == "vm-2"
    });
    let report: Value = serde_json::from_str(&json).unwrap();
    let item = &report["items"][0];
    // It is overdue after five of its eight seconds.
    assert!(item["nextDeadlineSeconds"].as_f64().unwrap() <= 3.0, "{json}");
    stage.until(&["top", "--sum", "--sort-by", "overdue"], "vm-2 is pruned", |table| {
        table.contains("greeter  2          1      0")
            && table.contains("\nSUM      2          1      0")
    });
}

/// The next deadline of greeter: in how many seconds, and of which instance.
fn deadline(seen: &str) -> Option<(f64, String)> {
    let line = seen.lines().find(|line| line.starts_with("greeter "))?;
    let mut words = line.split_whitespace().rev();
    let instance = words.next()?.to_owned();
    Some((words.next()?.strip_suffix('s')?.parse().ok()?, instance))
}

#[tokio::test]
async fn the_live_table_follows_beats_and_a_death_and_is_sorted_by_a_key() {
    let mut stage = Stage::new("top-live").await;
    stage.declare("greeter", "8s", "2s");
    stage.agent("vm-1", "192.0.2.11");
    stage.agent("vm-2", "192.0.2.12");
    let terminal = Terminal::open(&stage, &["top", "--watch", "--sum"]);
    let seen = terminal.until("both beat in time", |seen| {
        seen.contains("greeter  2          2      0        1.00")
            && seen.contains("\nSUM      2          2      0        1.00")
            && seen.contains("\nlive  rows 1–2 of 2")
    });
    assert!(seen.starts_with("NAME     INSTANCES  READY  OVERDUE"), "{seen}");
    // Each beats every two of the eight seconds, so time passes on the screen between beats.
    terminal
        .until("the deadline is counted down", |seen| deadline(seen).is_some_and(|it| it.0 < 7.0));
    stage.kill("vm-2");
    let is_near = |seen: &str| deadline(seen).is_some_and(|it| it.0 < 3.0 && it.1 == "vm-2");
    terminal.until("vm-2 is the next one to be pruned", is_near);
    terminal.until("vm-2 is pruned", |seen| seen.contains("greeter  2          1      0"));
    terminal.press("s");
    terminal.until("it is sorted by beats", |seen| seen.contains("s sort (by beats)"));
    terminal.press("q");
    terminal.until("the view has ended", |seen| !seen.contains("greeter"));
}

#[tokio::test]
async fn without_a_terminal_a_table_is_printed_each_second() {
    let mut stage = Stage::new("top-lines").await;
    stage.register("greeter", "");
    stage.agent("vm-1", "192.0.2.11");
    let mut command = stage.command(&["top", "-w"]);
    command.stdout(Stdio::piped());
    let mut watch = crate::stage::spawn(command);
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut next = |wanted: &str| {
        assert!(lines.any(|line| line.starts_with(wanted)), "no line {wanted}");
    };
    next("NAME     INSTANCES  READY  OVERDUE");
    next("greeter  1          1      0        1.00");
    stage.kill("vm-1");
    next("greeter  1          0      0        0.00");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[tokio::test]
async fn without_the_right_to_read_leases_nothing_is_measured() {
    let stage = Stage::without_operator("top-rights").await;
    stage.register("greeter", "");
    let rule = "{ apiGroups: [beatkeeper.dev], resources: [serviceregistrations], verbs: [get, list, watch] }";
    stage.grant(ANN, &[rule]);
    let printed = crate::stage::eventually("the role applies", || {
        match stage.plugin(&["top", "--as", "ann"]) {
            printed if printed.err.contains("cannot read Leases") => Ok(printed),
            printed => Err(format!("{printed:?}")),
        }
    });
    assert_eq!(printed.code, 1);
    assert!(printed.err.contains("cannot list resource \"leases\""), "{printed:?}");
}

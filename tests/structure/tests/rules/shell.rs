//! In the shell, all time, chance and tasks come from what the simulation controls (docs/adr/0001).

use beatkeeper_structure::{
    allowed::{self, Counts},
    calls::{self, Calls},
    files,
};

/// What the shell must not name.
const FORBIDDEN: [&str; 6] = [
    "std::time::Instant",
    "std::time::SystemTime",
    "std::thread::spawn",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "rand",
];

fn mistakes(text: &str) -> usize {
    let Calls { names, spawned } = calls::read(text);
    let forbidden = |name: &&String| {
        FORBIDDEN.iter().any(|it| {
            name.strip_prefix(it).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
    };
    names.iter().filter(forbidden).count()
        + spawned.iter().filter(|it| !it.contains(".task(")).count()
}

#[test]
fn the_shell_takes_time_chance_and_tasks_from_its_host() {
    let mut found = Counts::new();
    for file in ["src/controller", "src/kube_client"].into_iter().flat_map(files::rust) {
        let text = files::read(&file).expect("a source");
        let count = mistakes(&text);
        if count > 0 && !file.contains("tests") {
            found.insert(file, count);
        }
    }
    let wrong = allowed::compare("shell", &allowed::list("shell"), &found);
    assert!(
        wrong.is_empty(),
        "`tokio::spawn` without `Process::task`, or one of {FORBIDDEN:?}:\n  {}",
        wrong.join("\n  ")
    );
}

#[test]
fn each_mistake_is_found() {
    let clean = "use tokio::time::Instant; fn f(p: Process) { tokio::spawn(p.task(async {})); Instant::now(); }
        #[cfg(test)] mod tests { fn g() { tokio::spawn(async {}); } }";
    assert_eq!(mistakes(clean), 0);
    for wrong in [
        "fn f() { tokio::spawn(async {}); }",
        "use tokio::spawn; fn f() { spawn(async {}); }",
        "use std::{time::Instant};",
        "use std::time; fn f() -> time::Instant { todo!() }",
        "fn f() { std::time::SystemTime::now(); }",
        "use jiff::Timestamp; fn f() { Timestamp::now(); }",
        "fn f() -> u8 { rand::random() }",
        "use rand::Rng;",
    ] {
        assert_ne!(mistakes(wrong), 0, "{wrong}");
    }
}

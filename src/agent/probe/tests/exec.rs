use std::path::Path;
use std::time::Instant;

use rustix::process::{Pid, test_kill_process};

use super::*;

/// `sh -c SCRIPT`, with the path of a file as `$1`.
fn shell(script: &str, file: &Path) -> String {
    let words = ["sh", "-c", script, "sh", file.to_str().expect("UTF-8")];
    format!("exec:{}", shlex::try_join(words).expect("no NUL"))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Waits until the processes whose ids are in the file are gone: dead, if not yet reaped by the process that
/// adopted them.
async fn all_gone(file: &Path) {
    let ids = std::fs::read_to_string(file).expect("ids");
    assert!(!ids.is_empty());
    for id in ids.split_whitespace() {
        let began = Instant::now();
        while lives(id.parse().expect("an id")) {
            assert!(began.elapsed() < PATIENCE, "{id} lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn lives(id: i32) -> bool {
    let there = test_kill_process(Pid::from_raw(id).expect("not 0")).is_ok();
    // A zombie holds only its pid.
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    there && !stat.contains(") Z ")
}

/// Runs a command that writes ids into a file, and is too slow. It has to get so far: a busy machine may need longer than the
/// limit to start it.
async fn too_slow(script: &str, ids: &Path) {
    let began = Instant::now();
    while std::fs::read_to_string(ids).unwrap_or_default().is_empty() {
        assert!(began.elapsed() < PATIENCE, "it did not start");
        let outcome = probe_within(&shell(script, ids), MOMENT).await;
        assert_eq!(outcome, failure("not ended within 300ms"));
    }
}

#[tokio::test]
async fn to_end_with_0_is_success_and_all_else_is_named_with_the_first_line() {
    for (command, outcome) in [
        ("exec:true", Ok(None)),
        ("exec:sh -c 'echo fine; echo err >&2'", Ok(None)),
        ("exec:false", failure("ended with 1")),
        ("exec:sh -c 'echo; echo \" no  db\"; echo more; exit 3'", failure("ended with 3: no  db")),
        ("exec:sh -c 'echo first >&2; echo second; exit 2'", failure("ended with 2: first")),
        ("exec:sh -c 'kill -KILL $$'", failure("was killed by signal 9")),
        ("exec:/no/such/command", failure("cannot start: No such file or directory (os error 2)")),
    ] {
        assert_eq!(probe(command).await, outcome, "{command}");
    }
}

#[tokio::test]
async fn a_command_reads_nothing_and_gets_its_words_as_they_are() {
    assert_eq!(probe("exec:cat").await, Ok(None), "its input has ended");
    let outcome = probe("exec:sh -c 'echo \"$1\"; exit 1' sh '$HOME  *'").await;
    assert_eq!(outcome, failure("ended with 1: $HOME  *"));
}

#[tokio::test]
async fn one_that_ignores_sigterm_is_killed_with_its_children_at_the_timeout() {
    let folder = folder();
    let ids = folder.path().join("ids");
    let script = r#"trap '' TERM; sleep 600 & echo $$ $! > "$1"; while :; do sleep 600; done"#;
    too_slow(script, &ids).await;
    all_gone(&ids).await;
}

#[tokio::test]
async fn what_was_killed_is_reaped() {
    let folder = folder();
    let id = folder.path().join("id");
    too_slow(r#"echo $$ > "$1"; exec sleep 600"#, &id).await;
    let id = std::fs::read_to_string(&id).expect("an id").trim().parse().expect("a number");
    let began = Instant::now();
    while test_kill_process(Pid::from_raw(id).expect("not 0")).is_ok() {
        assert!(began.elapsed() < PATIENCE, "a zombie stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_child_that_is_left_behind_delays_no_answer_and_is_killed() {
    let folder = folder();
    let ids = folder.path().join("ids");
    // The child holds the output open.
    let script = r#"sleep 600 & echo $! > "$1"; echo done; exit 4"#;
    assert_eq!(probe(&shell(script, &ids)).await, failure("ended with 4: done"));
    all_gone(&ids).await;
}

#[tokio::test]
async fn one_that_has_left_the_group_delays_no_answer_either() {
    let folder = folder();
    let ids = folder.path().join("ids");
    let script = r#"setsid sh -c 'echo $$ > "$1"; sleep 10' sh "$1" & until [ -s "$1" ]; do :; done
        echo done; exit 5"#;
    let began = Instant::now();
    assert_eq!(probe(&shell(script, &ids)).await, failure("ended with 5: done"));
    assert!(began.elapsed() < Duration::from_secs(10), "it did not wait for the end of the output");
}

#[tokio::test]
async fn a_flood_of_output_is_read_and_not_kept() {
    let outcome = probe("exec:sh -c 'yes flood | head -c 50000000; exit 6'").await;
    assert_eq!(outcome, failure("ended with 6: flood"));
    let outcome = probe_within("exec:yes", MOMENT).await;
    assert_eq!(outcome, failure("not ended within 300ms"));
}

#[tokio::test]
async fn one_that_closes_its_output_is_waited_for() {
    assert_eq!(
        probe("exec:sh -c 'exec >&- 2>&-; sleep 0.2; exit 7'").await,
        failure("ended with 7")
    );
}

#[tokio::test]
async fn a_probe_that_is_dropped_kills_its_command() {
    let folder = folder();
    let ids = folder.path().join("ids");
    let command = shell(r#"sleep 600 & echo $$ $! > "$1"; wait"#, &ids);
    let probing = tokio::spawn(async move { probe(&command).await });
    let began = Instant::now();
    while std::fs::read_to_string(&ids).unwrap_or_default().lines().count() == 0 {
        assert!(began.elapsed() < PATIENCE, "it did not start");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    probing.abort();
    let _ = probing.await;
    all_gone(&ids).await;
}

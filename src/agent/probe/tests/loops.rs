use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::{Probe, Series, Verdict, run, run_by};
use super::*;

/// A probe loop that runs, with a period and a timeout of `period`.
struct Loop {
    verdicts: watch::Receiver<Verdict>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn start(text: &str, period: Duration, failure_threshold: u32) -> Loop {
    let mut probe: Probe = text.parse().expect("a probe");
    probe.timing.period = period;
    probe.timing.timeout = PATIENCE;
    probe.timing.failure_threshold = failure_threshold;
    // A probe never gives this verdict, so it cannot be mistaken for one.
    let unset =
        Verdict { healthy: true, message: Some("nothing was sent".to_owned()), decided: false };
    let (sender, verdicts) = watch::channel(unset);
    let stop = CancellationToken::new();
    let task = {
        let stop = stop.clone();
        tokio::spawn(async move { run(&probe, &sender, &stop, |_| ()).await })
    };
    Loop { verdicts, stop, task }
}

async fn until(verdicts: &mut watch::Receiver<Verdict>, message: Option<&str>) {
    let came = verdicts.wait_for(|verdict| verdict.message.as_deref() == message);
    let seen = tokio::time::timeout(PATIENCE, came).await;
    assert!(seen.is_ok_and(|seen| seen.is_ok()), "waiting for {message:?}");
}

async fn ends(task: JoinHandle<()>) {
    tokio::time::timeout(PATIENCE, task).await.expect("it ends").expect("without a panic");
}

#[tokio::test]
async fn verdicts_follow_a_server_that_dies_and_comes_back() {
    let (socket, address) = refusing();
    let period = Duration::from_millis(10);
    let Loop { mut verdicts, stop, task } = start(&format!("tcp://{address}"), period, 2);
    let refused = format!("tcp probe of {address}: connection refused");
    until(&mut verdicts, Some(&refused)).await;
    let listener = socket.listen(8).expect("a listener");
    until(&mut verdicts, None).await;
    assert!(verdicts.borrow().healthy);
    drop(listener);
    until(&mut verdicts, Some(&refused)).await;
    assert!(!verdicts.borrow().healthy);
    stop.cancel();
    ends(task).await;
}

#[tokio::test]
async fn before_the_first_probe_has_ended_the_verdict_says_that_there_is_none() {
    let (_listener, address) = listen().await;
    let text = format!("http://{address}/ready?key=secret");
    let Loop { mut verdicts, stop, task } = start(&text, Duration::from_secs(10), 1);
    until(&mut verdicts, Some(&format!("http probe of {address}/ready: no success yet"))).await;
    assert!(!verdicts.borrow().healthy);
    stop.cancel();
    ends(task).await;
}

#[tokio::test]
async fn two_probes_never_run_side_by_side() {
    let folder = tempfile::tempdir().expect("a folder");
    let lock = folder.path().join("lock");
    let count = folder.path().join("count");
    // The script takes longer than the period, and fails if another one has not ended.
    let script = r#"mkdir "$1" || exit 1; sleep 0.05; rmdir "$1"; echo >> "$2""#;
    let words = [lock.to_str(), count.to_str()].map(|path| path.expect("UTF-8"));
    let words = [["sh", "-c", script, "sh"].as_slice(), words.as_slice()].concat();
    let text = format!("exec:{}", shlex::try_join(words).expect("no NUL"));
    let Loop { mut verdicts, stop, task } = start(&text, Duration::from_millis(10), 1);
    until(&mut verdicts, None).await;
    let times = || std::fs::read_to_string(&count).unwrap_or_default().lines().count();
    let began = std::time::Instant::now();
    while times() < 5 {
        assert!(began.elapsed() < PATIENCE, "it goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!verdicts.has_changed().expect("it runs"), "none failed");
    stop.cancel();
    ends(task).await;
}

#[tokio::test]
async fn the_period_is_kept() {
    let asked = Arc::new(AtomicU32::new(0));
    let (listener, address) = listen().await;
    let counter = asked.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let text = format!("tcp://{address}");
    let Loop { mut verdicts, stop, task } = start(&text, Duration::from_secs(3600), 1);
    until(&mut verdicts, None).await;
    tokio::time::sleep(MOMENT).await;
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the next one comes in an hour");
    stop.cancel();
    ends(task).await;
}

#[tokio::test]
async fn a_loop_ends_when_it_is_stopped_in_a_probe_or_has_no_receiver() {
    let stopped = start("exec:sleep 600", Duration::from_secs(1), 1);
    stopped.stop.cancel();
    ends(stopped.task).await;
    let unheard = start("exec:sleep 600", Duration::from_secs(1), 1);
    drop(unheard.verdicts);
    ends(unheard.task).await;
}

#[tokio::test]
async fn a_probe_that_panics_has_failed_and_is_made_again() {
    let mut probe: Probe = "tcp://:5432".parse().expect("a probe");
    probe.timing.period = Duration::from_millis(10);
    (probe.timing.success_threshold, probe.timing.failure_threshold) = (1, 1);
    let (sender, mut verdicts) = watch::channel(Series::new(&probe).verdict().clone());
    let asked = AtomicU32::new(0);
    // Each probe waits until the verdict of the one before it has been seen.
    let seen_last = Notify::new();
    seen_last.notify_one();
    let check = || {
        let (turn, seen_last) = (asked.fetch_add(1, Ordering::Relaxed), &seen_last);
        async move {
            seen_last.notified().await;
            if turn == 1 { panic!("a fault of our own") } else { Ok(None) }
        }
    };
    let stop = CancellationToken::new();
    let seen = async {
        let panicked = "tcp probe of 127.0.0.1:5432: the program panicked: a fault of our own";
        for told in [None, Some(panicked), None] {
            until(&mut verdicts, told).await;
            seen_last.notify_one();
        }
    };
    tokio::select! {
        () = run_by(&probe, &sender, &stop, |_| (), check) => panic!("it has ended"),
        () = seen => {}
    }
}

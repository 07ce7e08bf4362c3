//! What the leader knows of an instance: `/explain`, for tokens whose users may get the registration.

pub mod reader;
mod refusals;
mod replicas;

use std::time::Instant;

use beatkeeper_api::explain::{ExplainPresence, ExplainProvenance, Explanation};
use serde_json::json;

use self::reader::{Asker, INTERVAL, explaining};
use crate::support::{TestNamespace, eventually};

/// What is compared was read at different moments.
const ABOUT: f64 = 0.1;

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_tells_of_an_instance_that_beats_and_then_stops_what_has_happened() {
    let ns = TestNamespace::new("explain").await;
    let operator = explaining(&ns, None, &[]);
    let asker = Asker::of(&ns, &operator).await;
    ns.greeter().await;
    let mut beats = ns.two_published(INTERVAL).await;
    // A busy machine may delay a beat.
    let second = INTERVAL.as_secs_f64();
    let well = asker.until("vm-1", "it beats each second", |it| {
        let lease = it.lease.as_ref();
        let interval = lease.and_then(|lease| lease.last_interval);
        interval.is_some_and(|interval| (second - interval).abs() < 0.7)
            && lease.is_some_and(|lease| lease.gaps.is_empty() && lease.published)
            && it.next_look.is_some()
            && it.decision.as_ref().is_some_and(|decision| decision.reason == "Beating")
    });
    let well = well.await;
    let (lease, decision) = (well.lease.unwrap(), well.decision.unwrap());
    assert!(well.replica.leads && well.replica.term == Some(1), "{:?}", well.replica);
    assert_eq!(
        (lease.presence, lease.provenance),
        (ExplainPresence::Watched, ExplainProvenance::Changed)
    );
    assert_eq!((lease.ttl, lease.expired), (3.0, None));
    assert!((lease.deadline + lease.last_change - 3.0).abs() < ABOUT, "{lease:?}");
    assert_eq!((&*decision.state, &*decision.reason), ("Ready", "Beating"));
    assert!(well.proof.last.is_some_and(|last| last < 3.0), "{:?}", well.proof);
    let next = well.next_look.expect("it looks again when a beat is late");
    assert!(next <= 3.0, "{next}");

    let began = Instant::now();
    let before = asker.explains("vm-1").await.lease.unwrap().last_change;
    beats.die("vm-1");
    let dead = asker.until("vm-1", "it is decided to be dead, and has left", |it| {
        it.decision.as_ref().is_some_and(|decision| decision.reason == "TTLPassed")
            && it.lease.as_ref().is_some_and(|lease| !lease.published)
    });
    let dead = dead.await;
    let lease = dead.lease.unwrap();
    assert!(lease.last_change <= began.elapsed().as_secs_f64() + before + ABOUT, "{lease:?}");
    assert!(lease.last_change >= 3.0 && lease.deadline <= 0.0, "{lease:?}");
    assert!(lease.read_after_deadline && lease.next_beat_wakes, "{lease:?}");
    let read = lease.live_read.unwrap();
    assert!(read <= -lease.deadline + ABOUT, "sent after the deadline: {lease:?}");
    assert!(lease.expired.is_some_and(|expired| expired <= read + ABOUT), "{lease:?}");
    assert_eq!(dead.proof.reaches_deadline, Some(true));
    let beats_on = |it: &Explanation| it.decision.as_ref().is_some_and(|it| it.reason == "Beating");
    asker.until("vm-2", "the other one beats on", beats_on).await;
    let unknown = asker.explains("vm-9").await;
    assert_eq!((unknown.lease, unknown.decision), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_min_ready_holds_is_told_as_such() {
    let ns = TestNamespace::new("explain-held").await;
    let operator = explaining(&ns, None, &[]);
    let asker = Asker::of(&ns, &operator).await;
    let mut spec = TestNamespace::usual_spec();
    spec["protection"] = json!({ "minReady": 1 });
    ns.register("greeter", spec).await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    beats.die("vm-1");
    let held = asker.until("vm-1", "minReady holds it", |it| {
        it.decision.as_ref().is_some_and(|decision| decision.reason == "Protected")
            && it.lease.as_ref().is_some_and(|lease| lease.read_after_deadline)
    });
    let held = held.await;
    let counted = held.min_ready;
    assert_eq!((counted.wanted, counted.ready, counted.held), (1, Some(0), Some(1)));
    let lease = held.lease.unwrap();
    assert!(lease.deadline <= 0.0 && lease.published, "{lease:?}");
    assert_eq!(held.outage, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_almost_no_beats_arrive_the_outage_is_told_and_how_long_it_holds() {
    let ns = TestNamespace::new("explain-outage").await;
    let operator = explaining(&ns, None, &[]);
    let asker = Asker::of(&ns, &operator).await;
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    let names: Vec<String> = (1..=12).map(|n| format!("vm-{n}")).collect();
    let addresses: Vec<String> = (1..=12).map(|n| format!("192.0.2.{n}")).collect();
    for (name, address) in names.iter().zip(&addresses) {
        beats.start(&beats.outside(name, address), INTERVAL).await;
    }
    let all: Vec<&str> = addresses.iter().map(String::as_str).collect();
    ns.published_as_ready("greeter", &all).await;
    for name in &names {
        beats.die(name);
    }
    let held = asker.until("vm-1", "the guard holds it", |it| {
        it.decision.as_ref().is_some_and(|decision| decision.reason == "PathBroken")
    });
    let held = held.await;
    let outage = held.outage.expect("an outage");
    assert_eq!(outage.namespace.as_deref(), Some(&*ns.name));
    let left = outage.holds_for.unwrap();
    // Ten ttls after the deadline, in proven time.
    let deadline = held.lease.unwrap().deadline;
    assert!((left - (deadline + 30.0)).abs() < ABOUT, "{left} {deadline}");
    // The guard adds a gap once beats arrive again.
    for name in &names {
        beats.keep_beating(name, INTERVAL);
    }
    let whole = eventually("the path is whole", async || {
        let it = asker.explains("vm-1").await;
        let beats = it.lease.as_ref()?.deadline > 0.0 && it.lease.as_ref()?.last_change < 3.0;
        (it.outage.is_none() && it.decision.as_ref()?.reason == "Beating" && beats).then_some(())
    });
    whole.await;
}

//! Several replicas: one leads and writes. The others watch, keep their caches up to date, and can
//! take over.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use beatkeeper_api::{ServiceRegistration, gateway::GATEWAYS_ANNOTATION};
use beatkeeper_cluster::{AuditMark, Options};
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;

use crate::support::{Beats, Operator, TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_secs(1);

/// With these durations a crashed leader is replaced soon, and a slow answer costs no leader its lead.
const SHORT: [&str; 3] = [
    "--leader-elect-lease-duration=5s",
    "--leader-elect-renew-deadline=4s",
    "--leader-elect-retry-period=200ms",
];
/// The claim is renewed often, and only a release hands over the lead.
const BUSY: [&str; 3] = [
    "--leader-elect-lease-duration=10m",
    "--leader-elect-renew-deadline=9m",
    "--leader-elect-retry-period=200ms",
];
/// The lease lasts longer than any test. Only a release hands over the lead, and only a watch shows
/// the release in time.
const LONG: [&str; 3] = [
    "--leader-elect-lease-duration=10m",
    "--leader-elect-renew-deadline=9m",
    "--leader-elect-retry-period=4m",
];

impl TestNamespace {
    /// A replica of the operator. Its name appears in the leader election and in the audit log.
    fn replica(&self, name: &str, flags: &[&str]) -> Operator {
        let mut all = self.ranges();
        all.push("--leader-elect".to_owned());
        all.push(format!("--leader-elect-resource-namespace={}", self.name));
        all.extend(flags.iter().map(|&flag| flag.to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        Operator::start_as(Some(name), &self.plane.kubeconfig(), &self.name, &all)
    }

    /// The first replica, which leads, and the second, which has seen that.
    async fn pair(&self, flags: &[&str]) -> (Operator, Operator) {
        let first = self.replica("first", flags);
        self.led_by("first").await;
        let second = self.replica("second", flags);
        logs(&second, "another replica leads").await;
        (first, second)
    }

    async fn leader(&self) -> Option<String> {
        let lease = self.api::<Lease>().get_opt("beatkeeper").await.unwrap()?;
        let holder = lease.spec?.holder_identity?;
        holder.rsplit_once('-').map(|(replica, _)| replica.to_owned())
    }

    async fn led_by(&self, replica: &str) {
        eventually(&format!("{replica} leads"), async || {
            (self.leader().await.as_deref() == Some(replica)).then_some(())
        })
        .await;
    }

    /// The list of gateways in the Lease of the election, after the leader has renewed its claim once more.
    async fn list_after_a_renewal(&self) -> Option<String> {
        let read = async || self.api::<Lease>().get("beatkeeper").await.unwrap();
        let renewed = |lease: &Lease| lease.spec.clone().unwrap().renew_time;
        let before = renewed(&read().await);
        let lease = eventually("the claim is renewed", async || {
            Some(read().await).filter(|lease| renewed(lease) != before)
        })
        .await;
        lease.metadata.annotations.unwrap_or_default().remove(GATEWAYS_ANNOTATION)
    }

    /// The replicas that wrote something since a mark, except for the Lease of the leader election.
    async fn writers_since(&self, mark: AuditMark) -> BTreeSet<String> {
        let written = self.written_since(mark).await;
        let replica =
            |agent: &str| agent.split_once('(').unwrap().1.trim_end_matches(')').to_owned();
        written.iter().map(|entry| replica(&entry.user_agent)).collect()
    }

    async fn mark(&self) -> AuditMark {
        self.plane.audit_mark().await.unwrap()
    }
}

async fn logs(operator: &Operator, text: &str) {
    eventually(&format!("a replica logs {text:?}"), async || {
        operator.logged().contains(text).then_some(())
    })
    .await;
}

/// `count` beating instances, vm-1 at 192.0.2.1 and so on, all published.
async fn beating(ns: &TestNamespace, ttl: &str, count: usize) -> Beats {
    let mut spec = TestNamespace::usual_spec();
    spec["ttl"] = json!(ttl);
    ns.register("greeter", spec).await;
    let mut beats = ns.beats("greeter");
    for n in 1..=count {
        let lease = beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}"));
        beats.start(&lease, INTERVAL).await;
    }
    published(ns, 1..=count).await;
    beats
}

async fn published(ns: &TestNamespace, instances: impl Iterator<Item = usize>) {
    let all: Vec<String> = instances.map(|n| format!("192.0.2.{n}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    ns.published_as_ready("greeter", &all).await;
}

fn only(replica: &str) -> BTreeSet<String> {
    [replica.to_owned()].into()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_leader_writes_and_on_sigterm_it_hands_the_lead_over_at_once() {
    let ns = TestNamespace::new("lead").await;
    let start = ns.mark().await;
    let (first, _second) = ns.pair(&LONG).await;
    let mut beats = beating(&ns, "3s", 5).await;
    let observer = ns.observe("greeter").await;
    beats.die("vm-5");
    observer.leaves("192.0.2.5").await.unwrap();
    ns.settled(INTERVAL).await;
    assert_eq!(ns.writers_since(start).await, only("first"));

    let mark = ns.mark().await;
    let asked = Instant::now();
    assert!(first.stop().await, "exit code 0");
    ns.led_by("second").await;
    println!("handed over {} ms after SIGTERM", asked.elapsed().as_millis());
    beats.die("vm-4");
    observer.leaves("192.0.2.4").await.unwrap();
    published(&ns, 1..=3).await;
    assert_eq!(ns.writers_since(mark).await, only("second"));
    assert_eq!(observer.left(), ["192.0.2.5", "192.0.2.4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_gateways_survives_renewals_and_a_hand_over_and_the_next_leader_reads_it() {
    let ns = TestNamespace::new("gateways").await;
    let (first, second) = ns.pair(&BUSY).await;
    assert_eq!(ns.list_after_a_renewal().await, None);
    let list = r#"[{"pod":"a","epoch":"18446744073709551615"},{"pod":"b","epoch":"2"}]"#;
    let annotations = json!({ GATEWAYS_ANNOTATION: list });
    ns.patch::<Lease>("beatkeeper", json!({ "metadata": { "annotations": annotations } })).await;
    for _ in 0..3 {
        assert_eq!(ns.list_after_a_renewal().await.as_deref(), Some(list));
    }
    assert!(first.stop().await);
    ns.led_by("second").await;
    logs(&second, "the election's Lease lists gateways gateways=2").await;
    assert_eq!(ns.list_after_a_renewal().await.as_deref(), Some(list));
    let lease = ns.api::<Lease>().get("beatkeeper").await.unwrap();
    assert_eq!(lease.spec.unwrap().lease_transitions, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_leader_is_replaced_and_only_the_dead_leave() {
    let ns = TestNamespace::new("crash").await;
    let (first, _second) = ns.pair(&SHORT).await;
    let mut beats = beating(&ns, "3s", 10).await;
    let observer = ns.observe("greeter").await;
    let killed = Instant::now();
    first.kill();
    beats.die("vm-10");
    ns.led_by("second").await;
    println!("replaced {} ms after SIGKILL", killed.elapsed().as_millis());
    observer.leaves("192.0.2.10").await.unwrap();
    published(&ns, 1..=9).await;
    // A third replica stands by for the second.
    let third = ns.replica("third", &SHORT);
    logs(&third, "another replica leads").await;
    assert_eq!(ns.leader().await.as_deref(), Some("second"));
    assert_eq!(observer.left(), ["192.0.2.10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_saw_the_last_beat_grants_no_second_ttl() {
    const TTL: Duration = Duration::from_secs(20);
    let ns = TestNamespace::new("warm").await;
    let (first, second) = ns.pair(&LONG).await;
    let mut beats = beating(&ns, "20s", 3).await;
    let observer = ns.observe("greeter").await;
    let dead = beats.die("vm-3");
    // Half of the ttl passes under the first leader.
    tokio::time::sleep(TTL / 2).await;
    let handover = Instant::now();
    assert!(first.stop().await);
    logs(&second, "this replica leads").await;
    let left = observer.leaves("192.0.2.3").await.unwrap();
    assert!(left >= dead + TTL - INTERVAL, "not before its deadline: {:?}", left - dead);
    assert!(left < handover + TTL, "a ttl anew after {:?}", left - handover);
    assert_eq!(observer.left(), ["192.0.2.3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ttl_that_became_longer_after_a_death_revives_no_instance_at_a_failover() {
    let ns = TestNamespace::new("edit").await;
    let (first, _second) = ns.pair(&LONG).await;
    let mut beats = beating(&ns, "3s", 2).await;
    let observer = ns.observe("greeter").await;
    beats.die("vm-2");
    observer.leaves("192.0.2.2").await.unwrap();
    ns.patch::<ServiceRegistration>("greeter", json!({ "spec": { "ttl": "1h" } })).await;
    eventually("the new generation is observed", async || {
        let status = ns.registration("greeter").await.status?;
        (status.observed_generation == Some(2)).then_some(())
    })
    .await;
    assert!(first.stop().await);
    ns.led_by("second").await;
    ns.instance("greeter", "vm-2", "Waiting", "AwaitingBeat").await;
    published(&ns, 1..=1).await;
    beats.beat_at("vm-2", jiff::Timestamp::now()).await;
    published(&ns, 1..=2).await;
    assert_eq!(observer.left(), ["192.0.2.2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_suspended_past_its_lease_writes_nothing_and_stands_by() {
    let ns = TestNamespace::new("zombie").await;
    let flags = [&SHORT[..], &["--metrics-bind-address=127.0.0.1:0"]].concat();
    let (first, second) = ns.pair(&flags).await;
    let mut beats = beating(&ns, "3s", 6).await;
    ns.settled(INTERVAL).await;
    let ready = async |wanted: (f64, f64)| {
        let ready = "beatkeeper_instances{state=\"Ready\"}";
        eventually(&format!("{wanted:?} are ready by the metrics"), async || {
            let told = (first.scrape().await.value(ready), second.scrape().await.value(ready));
            (told == wanted).then_some(())
        })
        .await;
    };
    ready((6.0, 0.0)).await;
    let observer = ns.observe("greeter").await;
    let mark = ns.mark().await;
    first.suspend();
    ns.led_by("second").await;
    // The resumed replica would write these changes if it still led.
    beats.die("vm-6");
    observer.leaves("192.0.2.6").await.unwrap();
    beats.die("vm-5");
    first.resume();
    logs(&first, "this replica leads no longer").await;
    observer.leaves("192.0.2.5").await.unwrap();
    logs(&first, "another replica leads").await;
    ns.settled(INTERVAL).await;
    assert_eq!(ns.writers_since(mark).await, only("second"));
    // A standby alerts for nothing.
    ready((0.0, 4.0)).await;

    // It leads again later, and has missed nothing.
    assert!(second.stop().await);
    ns.led_by("first").await;
    beats.die("vm-4");
    observer.leaves("192.0.2.4").await.unwrap();
    published(&ns, 1..=3).await;
    assert_eq!(observer.left(), ["192.0.2.6", "192.0.2.5", "192.0.2.4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_no_replica_leads_and_afterwards_one_does() {
    let plane = crate::support::crd::install_on_own(Options::default()).await;
    let ns = TestNamespace::new_on(plane, "outage").await;
    let (first, second) = ns.pair(&SHORT).await;
    let mut beats = beating(&ns, "3s", 10).await;
    let observer = ns.observe("greeter").await;
    plane.api_server().suspend().await.unwrap();
    logs(&first, "this replica leads no longer").await;
    // The pause is longer than the lease and than the ttl.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(!second.logged().contains("this replica leads"), "nothing allowed it to lead");
    plane.api_server().resume().await.unwrap();
    let leader = eventually("a replica publishes", async || {
        let leading = |one: &Operator| {
            let log = one.logged();
            let last = log.rfind("this replica leads")?;
            (!log[last..].starts_with("this replica leads no longer")).then_some(())
        };
        match (leading(&first), leading(&second)) {
            (Some(()), None) => Some("first"),
            (None, Some(())) => Some("second"),
            _ => None,
        }
    })
    .await;
    ns.led_by(leader).await;
    // The instances, which could not beat while the API server was suspended, beat again.
    tokio::time::sleep(2 * INTERVAL).await;
    let mark = ns.mark().await;
    beats.die("vm-10");
    observer.leaves("192.0.2.10").await.unwrap();
    published(&ns, 1..=9).await;
    assert_eq!(ns.writers_since(mark).await, only(leader));
    assert_eq!(observer.left(), ["192.0.2.10"]);
}

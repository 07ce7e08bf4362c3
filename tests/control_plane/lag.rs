//! How long after its deadline a dead instance leaves the slices (P2), and that none leaves earlier
//! (P1).
//!
//! The tests measure this with their own watches. They compute the deadline in two ways: from when
//! the test's watch saw the last beat, which is what an observer can know and from which the lag is
//! measured, and from when that beat was sent, because no observer can have begun to count earlier.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use beatkeeper_api::heartbeat;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::{
    Metadata,
    api::{coordination::v1::Lease, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams, WatchEvent, WatchParams},
};
use rand::{Rng, seq::IndexedRandom};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::support::TestNamespace;

const TTL: Duration = Duration::from_secs(3);
const INTERVAL: Duration = Duration::from_secs(1);
/// The number of instances that beat. A dead instance comes back, so that the number stays the
/// same.
const INSTANCES: u16 = 60;
/// A lag that no machine that still makes progress exceeds.
const GENEROUS: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_leave_soon_after_their_deadline_and_never_before() {
    let lags = deaths(50).await;
    println!("{}", lags.told());
    assert!(lags.0.last().unwrap() < &GENEROUS.as_secs_f64(), "{}", lags.told());
}

/// For `make bench-lag`. It takes some minutes and needs a machine without other work.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn lag_over_500_prunes() {
    let lags = deaths(500).await;
    println!("{}", lags.told());
    assert!(lags.0.last().unwrap() < &GENEROUS.as_secs_f64(), "{}", lags.told());
}

/// Seconds past the deadline, in ascending order.
struct Lags(Vec<f64>);

impl Lags {
    fn told(&self) -> String {
        let at = |share: f64| self.0[((self.0.len() - 1) as f64 * share).round() as usize] * 1e3;
        let early = self.0.iter().filter(|lag| **lag < 0.0).count();
        format!(
            "prune lag over {} deaths: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms \
             (min {:.1} ms; {early} before our own watch had counted to the ttl)",
            self.0.len(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0),
            at(0.0),
        )
    }
}

enum Seen {
    Beat(String),
    Joined(String),
    Left(String),
}

/// Lets `wanted` instances die at random moments, one at a time, and measures the lag of each.
async fn deaths(wanted: usize) -> Lags {
    let ns = TestNamespace::new("lag").await;
    let operator = ns.operator();
    ns.greeter().await;
    let mut hearts = HashMap::new();
    let mut instance_at = HashMap::new();
    let beats = ns.beats("greeter");
    for n in 0..INSTANCES {
        let (instance, address) = (format!("vm-{n}"), format!("198.18.0.{}", n + 1));
        beats.create(&beats.outside(&instance, &address)).await;
        hearts.insert(instance.clone(), Heart::start(&ns, &instance));
        instance_at.insert(address, instance);
    }
    let all: Vec<&str> = instance_at.keys().map(String::as_str).collect();
    ns.published_as_ready("greeter", &all).await;

    let (tell, mut seen) = mpsc::unbounded_channel();
    let watches = [watch_leases(&ns, tell.clone()), watch_slices(&ns, tell)];
    let mut living = BTreeSet::new();
    let mut dying: BTreeMap<String, Instant> = BTreeMap::new();
    let mut last_seen = HashMap::new();
    let mut lags = Vec::new();
    let mut killed = 0;
    let mut next = Box::pin(tokio::time::sleep(TTL));
    while lags.len() < wanted {
        tokio::select! {
            Some((at, event)) = seen.recv() => match event {
                Seen::Beat(instance) => drop(last_seen.insert(instance, at)),
                Seen::Joined(address) => drop(living.insert(instance_at[&address].clone())),
                Seen::Left(address) => {
                    let instance = &instance_at[&address];
                    let silent = dying.remove(instance);
                    assert!(silent.is_some(), "{instance} beat, and was pruned");
                    let sent = hearts[instance].last_sent();
                    let counted = at.duration_since(sent);
                    assert!(counted > TTL, "{instance} was pruned {counted:?} after it had beaten");
                    lags.push(seconds_between(last_seen[instance] + TTL, at));
                    hearts.insert(instance.clone(), Heart::start(&ns, instance));
                }
            },
            () = &mut next => {
                if killed < wanted {
                    let all: Vec<_> = living.iter().cloned().collect();
                    let victim = all.choose(&mut rand::rng()).unwrap();
                    living.remove(victim);
                    hearts[victim].stop.store(true, Ordering::Release);
                    dying.insert(victim.clone(), Instant::now());
                    killed += 1;
                }
                let overdue = dying.iter().find(|(_, since)| since.elapsed() > TTL + GENEROUS);
                assert_eq!(overdue, None, "dead for so long and still published");
                let pause = rand::rng().random_range(200..600);
                next = Box::pin(tokio::time::sleep(Duration::from_millis(pause)));
            }
        }
    }
    watches.iter().for_each(tokio::task::JoinHandle::abort);
    keep_log(&operator);
    lags.sort_by(f64::total_cmp);
    Lags(lags)
}

/// Keeps the operator's log to analyze where time is spent.
fn keep_log(operator: &crate::support::Operator) {
    if let Some(path) = std::env::var_os("BEATKEEPER_TEST_KEEP_LOG") {
        std::fs::write(path, operator.logged()).unwrap();
    }
}

fn seconds_between(from: Instant, to: Instant) -> f64 {
    match to.checked_duration_since(from) {
        Some(later) => later.as_secs_f64(),
        None => -from.duration_since(to).as_secs_f64(),
    }
}

/// A beating instance that records when it sent its last beat.
struct Heart {
    stop: Arc<AtomicBool>,
    last_sent: Arc<Mutex<Instant>>,
}

impl Heart {
    /// Starts at a random phase.
    fn start(ns: &TestNamespace, instance: &str) -> Self {
        let heart = Self { stop: Arc::default(), last_sent: Arc::new(Mutex::new(Instant::now())) };
        let (stop, last_sent) = (heart.stop.clone(), heart.last_sent.clone());
        let leases: Api<Lease> = ns.api();
        let name = heartbeat::lease_name("greeter", instance);
        let phase = INTERVAL.mul_f64(rand::rng().random_range(0.0..1.0));
        tokio::spawn(async move {
            tokio::time::sleep(phase).await;
            let mut ticks = tokio::time::interval(INTERVAL);
            loop {
                ticks.tick().await;
                if stop.load(Ordering::Acquire) {
                    return;
                }
                *last_sent.lock().unwrap() = Instant::now();
                let patch = Patch::Merge(heartbeat::beat_patch(Timestamp::now()));
                leases.patch(&name, &PatchParams::default(), &patch).await.unwrap();
            }
        });
        heart
    }

    fn last_sent(&self) -> Instant {
        *self.last_sent.lock().unwrap()
    }
}

type Tell = mpsc::UnboundedSender<(Instant, Seen)>;

fn watch_leases(ns: &TestNamespace, tell: Tell) -> tokio::task::JoinHandle<()> {
    let ours = format!("{}=greeter", heartbeat::REGISTRATION_LABEL);
    let mut tokens = HashMap::new();
    watch(ns.api::<Lease>(), ours, move |at, lease, _| {
        let instance = lease.spec.as_ref().unwrap().holder_identity.clone().unwrap();
        let token = lease.spec.unwrap().renew_time;
        if tokens.insert(instance.clone(), token.clone()) != Some(token) {
            let _ = tell.send((at, Seen::Beat(instance)));
        }
    })
}

fn watch_slices(ns: &TestNamespace, tell: Tell) -> tokio::task::JoinHandle<()> {
    let ours = "kubernetes.io/service-name=greeter".to_owned();
    let mut slices: HashMap<String, BTreeSet<String>> = HashMap::new();
    watch(ns.api::<EndpointSlice>(), ours, move |at, slice, deleted| {
        let before: BTreeSet<String> = slices.values().flatten().cloned().collect();
        let endpoints = slice.endpoints.iter().filter(|_| !deleted);
        let now = endpoints.flat_map(|endpoint| endpoint.addresses.clone()).collect();
        slices.insert(slice.metadata.name.unwrap(), now);
        let after: BTreeSet<String> = slices.values().flatten().cloned().collect();
        let left = before.difference(&after).cloned().map(Seen::Left);
        let joined = after.difference(&before).cloned().map(Seen::Joined);
        for event in left.chain(joined) {
            let _ = tell.send((at, event));
        }
    })
}

/// Watches objects with nothing added. `take_in` gets the time at which the event arrived.
fn watch<K>(
    api: Api<K>,
    labels: String,
    mut take_in: impl FnMut(Instant, K, bool) + Send + 'static,
) -> tokio::task::JoinHandle<()>
where
    K: Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Clone + std::fmt::Debug,
    K: Send + 'static,
{
    tokio::spawn(async move {
        let params = WatchParams::default().labels(&labels);
        let mut version = "0".to_owned();
        loop {
            let mut events = std::pin::pin!(api.watch(&params, &version).await.unwrap());
            while let Some(event) = events.next().await {
                let at = Instant::now();
                let (object, deleted) = match event.unwrap() {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                    WatchEvent::Deleted(object) => (object, true),
                    WatchEvent::Bookmark(_) => continue,
                    WatchEvent::Error(error) => panic!("the watch of the test broke: {error:?}"),
                };
                version = object.metadata().resource_version.clone().unwrap();
                take_in(at, object, deleted);
            }
        }
    })
}

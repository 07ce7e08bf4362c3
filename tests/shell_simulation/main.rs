//! The real operator on virtual time, against a modelled API server. `docs/adr/0001-…` gives the reasons. These
//! are the first steps of moving the simulation onto the shell.

mod network;
mod process;
mod random;
mod store;
mod wire;

use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use beatkeeper::controller::{self, Args, Clock, Host, Process, Settings};
use beatkeeper_api::heartbeat::{
    ADDRESSES_ANNOTATION, REGISTRATION_LABEL, beat_patch, lease_name, renew_time,
};
use clap::Parser;
use http::Request;
use hyper::body::Bytes;
use jiff::Timestamp;
use network::{Network, Weather};
use process::Fate;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// The iteration order of the hash tables of the standard library depends on these random bytes.
#[expect(unsafe_code, reason = "the signature of the C library")]
mod entropy {
    use super::Cell;

    thread_local!(static NEXT: Cell<u8> = const { Cell::new(1) });

    /// # Safety
    /// The same conditions as for the function of the C library.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
        let next = NEXT.try_with(|next| next.replace(next.get().wrapping_add(1))).unwrap_or(1);
        // SAFETY: the caller provides `length` bytes at `buffer`.
        unsafe { std::ptr::write_bytes(buffer, next, length) };
        isize::try_from(length).unwrap_or(isize::MAX)
    }
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    args: Args,
}

fn settings(elected: bool) -> Settings {
    static BOTH: OnceLock<[Settings; 2]> = OnceLock::new();
    let make = |flags: &[&str]| {
        let all = ["beatkeeper", "--outside-range", "shop=192.0.2.0/24"].iter().chain(flags);
        Settings::try_from(Flags::parse_from(all).args).expect("settings")
    };
    let both = BOTH.get_or_init(|| [make(&[]), make(&["--leader-elect"])]);
    both[usize::from(elected)].clone()
}

thread_local!(static BORN: Cell<Option<tokio::time::Instant>> = const { Cell::new(None) });

fn wall() -> Timestamp {
    let since = BORN.get().map_or(Duration::ZERO, |born| born.elapsed());
    let micros = 1_800_000_000_000_000 + i64::try_from(since.as_micros()).expect("small");
    Timestamp::from_microsecond(micros).expect("in range")
}

struct Replica {
    fate: Arc<Fate>,
    caller: usize,
}

fn start(network: &Network, caller: usize, elected: bool) -> Replica {
    let fate = Arc::new(Fate::default());
    let host = Host {
        api_server: network.of(caller),
        namespace: "beatkeeper".to_owned(),
        identity: format!("replica-{caller}"),
        clock: Clock::of_the_runtime(wall),
        process: Process::supervised(fate.clone()),
        observer: Arc::new(controller::Unobserved),
    };
    let run = controller::run_on(host, settings(elected), CancellationToken::new());
    let main = tokio::spawn(Process::supervised(fate.clone()).task(run));
    *fate.main.lock().expect("no panic") = Some(main.abort_handle());
    Replica { fate, caller }
}

fn kill(network: &Network, replica: &Replica) {
    replica.fate.kill();
    network.hang_up(replica.caller);
}

async fn ask(network: &Network, caller: usize, method: &str, path: &str, body: Value) -> u16 {
    let body = Bytes::from(serde_json::to_vec(&body).expect("JSON"));
    let request = Request::builder().method(method).uri(path).body(body).expect("a request");
    let answer = tokio::time::timeout(Duration::from_secs(1), network.send(caller, request)).await;
    answer.ok().and_then(Result::ok).map_or(0, |answer| answer.code)
}

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/shop/leases";

/// Sends a beat every interval, until the task is aborted.
async fn instance(network: Network, number: u8, interval: Duration) {
    let name = lease_name("cart", &format!("vm-{number}"));
    let path = format!("{LEASES}/{name}");
    let mut next = tokio::time::Instant::now() + interval * u32::from(number) / 8;
    loop {
        tokio::time::sleep_until(next).await;
        let code =
            ask(&network, 100 + usize::from(number), "PATCH", &path, beat_patch(wall())).await;
        if code == 404 {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {
                    "name": name,
                    "labels": { REGISTRATION_LABEL: "cart" },
                    "annotations": { ADDRESSES_ANNOTATION: format!("192.0.2.{number}") },
                },
                "spec": { "holderIdentity": format!("vm-{number}"), "renewTime": renew_time(wall()) },
            });
            ask(&network, 100 + usize::from(number), "POST", LEASES, lease).await;
        }
        let jitter = network.world().random.between(0, 200);
        next += interval - interval / 10 + interval * u32::try_from(jitter).expect("few") / 1000;
    }
}

fn published(network: &Network) -> BTreeSet<String> {
    let mut world = network.world();
    let slices = world.store.kind("endpointslices");
    let endpoints = slices.objects.values().flat_map(|slice| {
        slice.value["endpoints"].as_array().into_iter().flatten().collect::<Vec<_>>()
    });
    endpoints.filter_map(|endpoint| endpoint["addresses"][0].as_str().map(str::to_owned)).collect()
}

async fn until(network: &Network, wanted: &[&str], within: Duration) -> Duration {
    let wanted: BTreeSet<String> = wanted.iter().map(|text| (*text).to_owned()).collect();
    let began = tokio::time::Instant::now();
    while published(network) != wanted {
        if began.elapsed() >= within {
            println!("{}", network.world().trace.take().unwrap_or_default());
            panic!("{:?} instead of {wanted:?}", published(network));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    replicas: usize,
    unanswered: u64,
    crash: bool,
    /// The first replica is suspended for this many seconds.
    suspended: u64,
    seconds: u64,
}

struct Played {
    trace: Option<String>,
    requests: u64,
    gone_after: Duration,
}

/// Plays a scenario on a new thread, so that all scenarios begin in the same state.
fn play(seed: u64, plan: Plan, traced: bool) -> Played {
    if std::env::var_os("RUST_LOG").is_some() {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .without_time()
            .with_writer(std::io::stdout)
            .try_init();
    }
    std::thread::spawn(move || {
        fastrand::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(schedule(seed, plan, traced))
    })
    .join()
    .expect("no panic")
}

async fn schedule(seed: u64, plan: Plan, traced: bool) -> Played {
    let start_of_all = tokio::time::Instant::now();
    BORN.set(Some(start_of_all));
    let network = Network::new(seed, traced);
    let registration = json!({
        "apiVersion": "beatkeeper.dev/v1alpha1",
        "kind": "ServiceRegistration",
        "metadata": { "name": "cart" },
        "spec": {
            "ttl": "6s", "interval": "2s",
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }],
        },
    });
    {
        let mut world = network.world();
        world.store.create("serviceregistrations", "shop", registration, false).expect("it is new");
    }
    let elected = plan.replicas > 1;
    let mut replicas: Vec<Replica> =
        (0..plan.replicas).map(|place| start(&network, place, elected)).collect();
    let interval = Duration::from_secs(2);
    let instances: Vec<_> =
        (1..=3).map(|number| tokio::spawn(instance(network.clone(), number, interval))).collect();
    until(&network, &["192.0.2.1", "192.0.2.2", "192.0.2.3"], Duration::from_secs(30)).await;
    network.world().weather = Weather { unanswered: plan.unanswered, ..network::FAIR };
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(published(&network).len(), 3);
    if plan.suspended > 0 {
        replicas[0].fate.suspend();
        let halted = network.world().requests_of(0);
        tokio::time::sleep(Duration::from_secs(plan.suspended)).await;
        assert!(network.world().requests_of(0) - halted <= 4, "it does nothing");
        replicas[0].fate.resume();
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(published(&network).len(), 3);
        }
    }
    if plan.crash {
        kill(&network, &replicas[0]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        replicas.push(start(&network, replicas.len(), elected));
    }
    network.world().weather = network::FAIR;
    instances[1].abort();
    let gone_after = until(&network, &["192.0.2.1", "192.0.2.3"], Duration::from_secs(40)).await;
    let end = start_of_all + Duration::from_secs(plan.seconds);
    while tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(published(&network).len(), 2);
    }
    let mut world = network.world();
    Played { trace: world.trace.take(), requests: world.requests, gone_after }
}

const SIMPLE: Plan = Plan { replicas: 1, unanswered: 0, crash: false, suspended: 0, seconds: 60 };

#[test]
fn who_dies_leaves_and_the_others_stay() {
    let played = play(1, SIMPLE, true);
    if std::env::var_os("SHOW").is_some() {
        println!("{}", played.trace.unwrap_or_default());
    }
    println!("{} requests, gone after {:?}", played.requests, played.gone_after);
    let ttl = Duration::from_secs(6);
    assert!(played.gone_after > ttl - Duration::from_millis(2300));
    assert!(played.gone_after < ttl + Duration::from_millis(100));
}

#[test]
fn lost_answers_change_nothing() {
    for seed in 1..20 {
        play(seed, Plan { unanswered: 10, ..SIMPLE }, false);
    }
}

#[test]
fn an_operator_that_is_killed_is_followed_by_another() {
    for seed in 1..20 {
        play(seed, Plan { crash: true, ..SIMPLE }, false);
    }
}

#[test]
fn an_operator_that_stood_still_for_three_ttls_removes_no_instance_that_beats() {
    for seed in 1..20 {
        play(seed, Plan { suspended: 20, ..SIMPLE }, false);
        play(seed, Plan { suspended: 20, replicas: 2, ..SIMPLE }, false);
    }
}

#[test]
fn of_two_replicas_one_takes_over() {
    for seed in 1..20 {
        play(seed, Plan { replicas: 2, crash: true, ..SIMPLE }, false);
    }
}

#[test]
fn the_same_seed_gives_the_same_requests() {
    for (seed, plan) in [
        (1, SIMPLE),
        (2, Plan { unanswered: 10, ..SIMPLE }),
        (3, Plan { replicas: 2, crash: true, unanswered: 5, ..SIMPLE }),
    ] {
        let (one, other) = (play(seed, plan, true).trace, play(seed, plan, true).trace);
        let (one, other) = (one.expect("a trace"), other.expect("a trace"));
        for (n, (left, right)) in one.lines().zip(other.lines()).enumerate() {
            assert_eq!(left, right, "line {n} of seed {seed}");
        }
        assert_eq!(one.lines().count(), other.lines().count());
    }
}

#[test]
#[ignore = "a measurement"]
fn how_fast_it_is() {
    for (name, plan) in [
        ("one replica", SIMPLE),
        ("one replica, 600 s", Plan { seconds: 600, ..SIMPLE }),
        ("two replicas", Plan { replicas: 2, crash: true, unanswered: 5, ..SIMPLE }),
    ] {
        let began = Instant::now();
        let mut requests = 0;
        let count = std::env::var("COUNT").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
        for seed in 0..count {
            requests += play(seed, plan, false).requests;
        }
        let took = began.elapsed().as_secs_f64();
        println!(
            "{name}: {count} schedules of 60 s, {requests} requests, {took:.2} s: {:.0} a second and core",
            f64::from(u32::try_from(count).expect("few")) / took
        );
    }
}

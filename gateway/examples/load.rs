//! Measures what a beat costs a gateway: beats a second, and CPU time of its one thread for each beat.
//!
//! `cargo run --release -p beatkeeper-gateway --example load` runs the gateway, a leader and the clients in one process on loopback, with TLS. Clients and
//! leader have the other cores. Run it alone: it prints the median of several rounds, and the range.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/gateway/support/mod.rs"]
#[allow(dead_code)]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use beatkeeper_api::beats::{BEATS_PATH, BeatLease, Beats};
use beatkeeper_core::vocabulary::rate_limit::RateLimit;
use beatkeeper_gateway::run::{Bound, on_this_thread};
use rustix::time::{ClockId, clock_gettime};
use support::{
    clients::{Client, Target, request},
    leader::Leader,
    until,
    world::World,
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

const CLIENTS: usize = 64;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(3);

/// A gateway on its thread, which tells the CPU time that it has used, in microseconds.
struct Measured {
    target: Target,
    cpu: Arc<AtomicU64>,
    stop: CancellationToken,
    _leader: Leader,
}

fn thread_cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000 + u64::try_from(time.tv_nsec).unwrap() / 1000
}

async fn start(world: &World) -> Measured {
    let (tell, told) = tokio::sync::oneshot::channel();
    let (cpu, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let (used, stopped, ports) = (cpu.clone(), stop.clone(), world.ports());
    let mut settings = world.settings();
    let unlimited = RateLimit { burst: u32::MAX, every: Duration::from_nanos(1) };
    (settings.limits.rate, settings.limits.introductions) = (unlimited, unlimited);
    // All clients have one identity.
    (settings.limits.bodies, settings.limits.bodies_per_identity) = (usize::MAX, usize::MAX);
    std::thread::spawn(move || {
        on_this_thread(async move {
            let bound = Bound::bind(settings).await.unwrap();
            tell.send(bound.addresses()).unwrap();
            let watch = async {
                loop {
                    used.store(thread_cpu(), Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                ended = bound.run(ports(), stopped) => ended.unwrap(),
                () = watch => {}
            }
        })
        .unwrap();
    });
    let addresses = told.await.unwrap();
    let leader = world.leader_at(addresses.streams);
    until("a stream", async || support::clients::page(addresses.admin, "/readyz").await.0 == 200)
        .await;
    let target = Target { address: addresses.beats, ca: world.pki.pem() };
    Measured { target, cpu, stop, _leader: leader }
}

/// One round of a load: beats a second, and microseconds of the gateway's thread for each.
async fn round(measured: &Measured, count: &AtomicU64) -> (f64, f64) {
    let (began, beats, cpu) = (Instant::now(), count.load(Relaxed), measured.cpu.load(Relaxed));
    tokio::time::sleep(ROUND).await;
    let beats = count.load(Relaxed) - beats;
    let cpu = measured.cpu.load(Relaxed) - cpu;
    let beats = u32::try_from(beats).map_or(0.0, f64::from);
    (
        beats / began.elapsed().as_secs_f64(),
        u32::try_from(cpu).map_or(0.0, f64::from) / beats.max(1.0),
    )
}

fn summary(mut values: Vec<f64>, digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    format!("{:.digits$} ({least:.digits$} to {most:.digits$})", values[values.len() / 2])
}

async fn measure(what: &str, measured: &Measured, count: &AtomicU64) {
    round(measured, count).await;
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (rate, cost) = round(measured, count).await;
        rates.push(rate);
        costs.push(cost);
    }
    println!("{what}: {} beats/s, {} µs of CPU a beat", summary(rates, 0), summary(costs, 2));
}

async fn again_and_again(
    mut client: Client,
    next: impl Fn() -> http::Request<http_body_util::Full<bytes::Bytes>>,
    each: u64,
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) {
    while !stop.load(Relaxed) {
        assert_eq!(client.send(next()).await.unwrap().code, 200);
        count.fetch_add(each, Relaxed);
    }
}

async fn load(what: &str, measured: &Measured, clients: usize, each: usize, token: &str) {
    let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut running = JoinSet::new();
    for n in 0..clients {
        let client = measured.target.http1().await.unwrap();
        let token = token.to_owned();
        let leases = (0..each).map(|m| BeatLease {
            namespace: "shop".to_owned(),
            name: format!("reg.vm-{}", (n + m) % 100),
        });
        let leases: Vec<_> = leases.collect();
        let next = move || match &leases[..] {
            [lease] => support::clients::beat(&lease.name, &token, &support::clients::renewal()),
            leases => {
                let body = serde_json::to_string(&Beats::of(leases.to_vec())).unwrap();
                request("POST", BEATS_PATH, Some(&token), "application/json", body)
            }
        };
        running.spawn(again_and_again(client, next, each as u64, count.clone(), stop.clone()));
    }
    measure(what, measured, &count).await;
    stop.store(true, Relaxed);
    running.join_all().await;
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    let world = World::new();
    let measured = start(&world).await;
    let token = world.agent();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{cores} cores, shared by gateway, leader and clients; median (range) of {ROUNDS} rounds of {ROUND:?}"
    );
    load("64 clients, a beat at a time", &measured, CLIENTS, 1, &token).await;
    load("1 client, 100 beats a request", &measured, 1, 100, &token).await;
    load("8 clients, 100 beats a request", &measured, 8, 100, &token).await;
    measured.stop.cancel();
}

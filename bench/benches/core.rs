//! The cost of the core: taking in beats, decisions, deadlines and plans. `scripts/bench core` runs this and keeps
//! the raw samples.

use std::hint::black_box;
use std::time::Duration;

use beatkeeper_bench::deaths::Deaths;
use beatkeeper_bench::instances::{Instances, NAMESPACE, Size};
use beatkeeper_bench::service::{Decisions, Plans, next_deadline};
use beatkeeper_core::objects::heartbeat::{Heartbeat, HeartbeatLease};
use beatkeeper_core::vocabulary::monotonic_time::MonotonicTime;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kube::core::WatchEvent;
use serde_json::{Value, json};

/// How many beats are made in advance. The index then takes them in one after the other.
const ROUND: usize = 1_000;

/// Decodes a line of the heartbeat watch as the API server sends it. This is the cost of a beat before any other
/// code handles it.
fn decode(criterion: &mut Criterion) {
    // The Lease of an instance in a Pod, with the API server's managedFields.
    let lease: Value = serde_json::from_str(include_str!("lease.json")).expect("JSON");
    // The type comes first, as the API server sends it: otherwise the decoder would have to keep everything else
    // until it knows the type.
    let line = format!(r#"{{"type":"MODIFIED","object":{lease}}}"#).into_bytes();
    let mut group = criterion.benchmark_group("decode_a_beat");
    group.throughput(Throughput::Elements(1));
    group.bench_function("watch_event", |bencher| {
        bencher.iter(|| {
            serde_json::from_slice::<WatchEvent<HeartbeatLease>>(black_box(&line)).expect("a Lease")
        });
    });
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let lease: HeartbeatLease = serde_json::from_value(json!({
        "metadata": {
            "name": "service-0.vm-1", "namespace": NAMESPACE, "resourceVersion": "123456",
            "uid": "00000000-0000-4000-8000-000000000001",
            "labels": { "beatkeeper.dev/registration": "service-0" },
            "annotations": { "beatkeeper.dev/addresses": "10.0.0.1" },
        },
        "spec": {
            "holderIdentity": "vm-1", "leaseDurationSeconds": 10,
            "renewTime": "2026-01-01T00:00:00.123456Z",
        },
    }))
    .expect("a Lease");
    let mut group = criterion.benchmark_group("read_a_beat");
    group.throughput(Throughput::Elements(1));
    group.bench_function("lease", |bencher| bencher.iter(|| Heartbeat::read(black_box(&lease))));
    group.finish();
}

fn observe(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("take_in_beats");
    group.throughput(Throughput::Elements(ROUND as u64));
    for size in Size::ALL {
        let mut instances = Instances::new(size);
        let id = BenchmarkId::new(format!("{}_services", size.services), size.instances);
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for round in 0..rounds {
                    let beats = instances.round(ROUND);
                    let now = MonotonicTime::from_millis(10 + round);
                    let began = std::time::Instant::now();
                    for beat in beats {
                        black_box(instances.index.observe(NAMESPACE, beat, now));
                    }
                    spent += began.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

fn deciding(criterion: &mut Criterion) {
    for (name, millis) in [("decide_all_alive", 1_000), ("decide_all_overdue", 20_000)] {
        let mut group = criterion.benchmark_group(name);
        for instances in [10, 100, 1_000, 10_000] {
            let decisions = Decisions::new(instances);
            group.throughput(Throughput::Elements(instances as u64));
            group.bench_function(BenchmarkId::new("instances", instances), |bencher| {
                bencher.iter(|| decisions.decide(black_box(millis)));
            });
        }
        group.finish();
    }
}

/// One death among many: decided about all instances, about those of which something has changed, and planned as well.
fn deaths(criterion: &mut Criterion) {
    let groups = [
        ("decide_one_death_in_full", false, false),
        ("decide_one_death", true, false),
        ("decide_and_plan_one_death", true, true),
    ];
    for (name, keeps, plans) in groups {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        for instances in [1_000, 10_000, 100_000] {
            let mut deaths = Deaths::new(instances, keeps);
            if plans {
                deaths = deaths.with_plans();
            }
            let mut victim = 0;
            group.bench_function(BenchmarkId::new("instances", instances), |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..rounds {
                        victim = (victim + 7_919) % instances;
                        spent += deaths.one_dies(victim);
                    }
                    spent
                });
            });
        }
        group.finish();
    }
}

/// Computes each service's own deadline from its verdicts; a million instances are 1,000 of these services.
fn deadline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("next_deadline");
    for instances in [1_000, 1_000_000] {
        let verdicts = Decisions::new(instances).decide(1_000);
        group.throughput(Throughput::Elements(instances as u64));
        group.bench_function(BenchmarkId::new("instances", instances), |bencher| {
            bencher.iter(|| next_deadline(black_box(&verdicts)));
        });
    }
    group.finish();
}

fn planning(criterion: &mut Criterion) {
    for (name, share) in [("plan_nothing", 0), ("plan_one_death", 1), ("plan_death_of_half", 2)] {
        let mut group = criterion.benchmark_group(name);
        for endpoints in [10, 100, 1_000, 10_000] {
            let plans = Plans::new(endpoints);
            let dead = if share == 2 { endpoints / 2 } else { share };
            group.throughput(Throughput::Elements(endpoints as u64));
            group.bench_function(BenchmarkId::new("endpoints", endpoints), |bencher| {
                let plan = |dead| plans.plan_without(black_box(dead));
                bencher.iter_batched(|| dead, plan, BatchSize::PerIteration);
            });
        }
        group.finish();
    }
}

criterion_group!(core, decode, read, observe, deciding, deaths, deadline, planning);
criterion_main!(core);

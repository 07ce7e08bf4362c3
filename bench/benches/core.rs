//! The cost of the core: taking in beats, decisions, deadlines and plans. `scripts/bench core` runs this and keeps
//! the raw samples.

use std::hint::black_box;
use std::time::Duration;

use beatkeeper_bench::instances::{Instances, NAMESPACE, Size};
use beatkeeper_bench::service::{Decisions, Plans, next_deadline};
use beatkeeper_core::objects::heartbeat::{Heartbeat, HeartbeatLease};
use beatkeeper_core::vocabulary::monotonic_time::MonotonicTime;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kube::core::WatchEvent;
use serde_json::json;

/// How many beats are made in advance. The index then takes them in one after the other.
const ROUND: usize = 1_000;

/// Decodes a line of the heartbeat watch as the API server sends it. This is the cost of a beat before any other
/// code handles it.
fn decode(criterion: &mut Criterion) {
    // The type comes first, as the API server sends it: otherwise the decoder would have to keep everything else
    // until it knows the type.
    let line = format!(r#"{{"type":"MODIFIED","object":{}}}"#, lease_of_a_pod()).into_bytes();
    let mut group = criterion.benchmark_group("decode_a_beat");
    group.throughput(Throughput::Elements(1));
    group.bench_function("watch_event", |bencher| {
        bencher.iter(|| {
            serde_json::from_slice::<WatchEvent<HeartbeatLease>>(black_box(&line)).expect("a Lease")
        });
    });
    group.finish();
}

/// Returns the Lease of an instance in a Pod, with the API server's managedFields.
fn lease_of_a_pod() -> serde_json::Value {
    let created = json!({
        "f:metadata": {
            "f:labels": { ".": {}, "f:beatkeeper.dev/registration": {} },
            "f:ownerReferences": { ".": {}, "k:{\"uid\":\"6b6d3c1e-6a4c-4d0f-9f0e-0c8a1b1f5a11\"}": {} },
        },
        "f:spec": { "f:holderIdentity": {}, "f:leaseDurationSeconds": {} },
    });
    let fields = |manager: &str, operation: &str, fields: serde_json::Value| {
        json!({
            "manager": manager, "operation": operation, "apiVersion": "coordination.k8s.io/v1",
            "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields,
        })
    };
    json!({
        "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
        "metadata": {
            "name": "greeter.greeter-7f9c5d8b6-x2x9k", "namespace": NAMESPACE,
            "uid": "2f1c6f0a-93a4-4a65-8d8e-4b0a2c7d9e31", "resourceVersion": "123456",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": { "beatkeeper.dev/registration": "greeter" },
            "annotations": { "beatkeeper.dev/health": "Passing" },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Pod", "name": "greeter-7f9c5d8b6-x2x9k",
                "uid": "6b6d3c1e-6a4c-4d0f-9f0e-0c8a1b1f5a11",
            }],
            "managedFields": [
                fields("beatkeeper-agent", "Apply", created),
                fields("beatkeeper-agent", "Update", json!({
                    "f:metadata": { "f:annotations": { ".": {}, "f:beatkeeper.dev/health": {} } },
                    "f:spec": { "f:renewTime": {} },
                })),
            ],
        },
        "spec": {
            "holderIdentity": "greeter-7f9c5d8b6-x2x9k", "leaseDurationSeconds": 30,
            "renewTime": "2026-01-01T00:00:00.123456Z",
        },
    })
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
            group.bench_with_input(
                BenchmarkId::new("instances", instances),
                &decisions,
                |bencher, decisions| {
                    bencher.iter(|| decisions.decide(black_box(millis)));
                },
            );
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
        group.bench_with_input(
            BenchmarkId::new("instances", instances),
            &verdicts,
            |bencher, all| {
                bencher.iter(|| next_deadline(black_box(all)));
            },
        );
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
            group.bench_with_input(
                BenchmarkId::new("endpoints", endpoints),
                &plans,
                |bencher, plans| {
                    bencher.iter_batched(
                        || dead,
                        |dead| plans.plan_without(black_box(dead)),
                        BatchSize::PerIteration,
                    );
                },
            );
        }
        group.finish();
    }
}

criterion_group!(core, decode, read, observe, deciding, deadline, planning);
criterion_main!(core);

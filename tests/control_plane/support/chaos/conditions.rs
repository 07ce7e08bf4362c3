//! The conditions of a run: when the API server could accept a beat, when the operator was away,
//! and when the machine stood still.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::task::JoinHandle;

use super::span::{Span, merged, overlap};
use crate::support::TestNamespace;

/// The pause between two writes that measure availability, and the timeout of each write.
const PACE: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_millis(250);
/// A write that takes longer shows that the machine or the API server was held up.
const SLOW: Duration = Duration::from_millis(50);
/// The total error of the two ends of an outage. The last write before the outage was accepted at
/// most one pause before it. The first accepted write after it may follow a write that timed out.
const MARGIN: Duration = PACE.saturating_add(SLOW).saturating_mul(2).saturating_add(LIMIT);
/// The API server could accept no beats between two accepted writes that lie farther apart than
/// this.
const AWAY: Duration = Duration::from_millis(600);
/// The length of a nap. A nap that takes longer by `SLOW` shows that the machine stood still.
const NAP: Duration = Duration::from_millis(5);

/// Records the conditions until dropped.
pub struct Conditions {
    record: Arc<Mutex<Record>>,
    writes: JoinHandle<()>,
    over: Arc<AtomicBool>,
}

struct Record {
    accepted: Instant,
    away: Vec<Span>,
    operator_away: Vec<Span>,
    held_up: Vec<Span>,
    pauses: Vec<Span>,
}

impl Conditions {
    /// Starts to record.
    pub async fn watch(ns: &TestNamespace) -> Self {
        let probe: ConfigMap = ns.create(json!({ "metadata": { "name": "conditions" } })).await;
        drop(probe);
        let now = Instant::now();
        let record = Arc::new(Mutex::new(Record {
            accepted: now,
            away: Vec::new(),
            operator_away: Vec::new(),
            held_up: Vec::new(),
            pauses: Vec::new(),
        }));
        let over = Arc::new(AtomicBool::new(false));
        let writes = tokio::spawn(write(ns.api(), WriteLog(record.clone())));
        std::thread::spawn({
            let (record, over) = (record.clone(), over.clone());
            move || nap(&record, &over)
        });
        Self { record, writes, over }
    }

    /// Records that the operator could not work between these moments.
    pub fn operator_away(&self, from: Instant, to: Instant) {
        self.record.lock().unwrap().operator_away.push(Span { from, to });
    }

    /// Records the writes that the API server accepted, from any sender.
    pub fn write_log(&self) -> WriteLog {
        WriteLog(self.record.clone())
    }

    /// For how much of a stretch, at most, the API server could accept beats.
    pub fn available(&self, from: Instant, to: Instant) -> Duration {
        let stretch = Span { from, to };
        let away = overlap(self.record.lock().unwrap().away.clone(), stretch);
        stretch.length() - away.saturating_sub(MARGIN)
    }

    /// For how much of a stretch neither the API server nor the machine was away or held up.
    pub fn undisturbed(&self, from: Instant, to: Instant) -> Duration {
        let record = self.record.lock().unwrap();
        let disturbed = record.away.iter().chain(&record.held_up).copied().collect();
        let stretch = Span { from, to };
        stretch.length() - overlap(disturbed, stretch)
    }

    /// For how much of a stretch the machine or the API server was held up.
    pub fn held_up(&self, from: Instant, to: Instant) -> Duration {
        overlap(self.record.lock().unwrap().held_up.clone(), Span { from, to })
    }

    /// When an instance is due to be pruned by the rule of proven time (L3), from what is recorded
    /// here. A gap of up to half of the slack adds its length. A longer gap adds a whole ttl.
    pub fn due(&self, last_beat: Instant, ttl: Duration, interval: Duration) -> Instant {
        let gaps = {
            let record = self.record.lock().unwrap();
            merged(record.away.iter().chain(&record.operator_away).copied().collect())
        };
        let mut due = last_beat + ttl;
        for gap in gaps.into_iter().filter(|gap| gap.to > last_beat) {
            let from = gap.from.max(last_beat);
            if from >= due {
                break;
            }
            let length = gap.to - from;
            due = if length <= (ttl - interval) / 2 { due + length } else { gap.to + ttl };
        }
        due
    }

    /// The longest time in which the machine ran nothing that it should have run.
    pub fn longest_pause(&self) -> Duration {
        let record = self.record.lock().unwrap();
        record.pauses.iter().map(|pause| pause.length()).max().unwrap_or_default()
    }

    /// How long the API server could accept nothing, in total.
    pub fn away(&self) -> Duration {
        self.record.lock().unwrap().away.iter().map(|span| span.length()).sum()
    }
}

/// Records accepted writes.
#[derive(Clone)]
pub struct WriteLog(Arc<Mutex<Record>>);

impl WriteLog {
    /// Records a write that was sent at one moment, and that was known at another to be accepted.
    pub fn accepted(&self, sent: Instant, answered: Instant) {
        let mut record = self.0.lock().unwrap();
        let quiet = Span { from: record.accepted, to: answered };
        if quiet.length() > AWAY {
            record.away.push(quiet);
        }
        if answered.duration_since(sent) > SLOW {
            record.held_up.push(Span { from: sent, to: answered });
        }
        record.accepted = record.accepted.max(answered);
    }
}

async fn write(maps: Api<ConfigMap>, write_log: WriteLog) {
    for n in 0_u64.. {
        let sent = Instant::now();
        let patch = Patch::Merge(json!({ "data": { "n": n.to_string() } }));
        let params = PatchParams::default();
        let answer = tokio::time::timeout(LIMIT, maps.patch("conditions", &params, &patch)).await;
        if matches!(answer, Ok(Ok(_))) {
            write_log.accepted(sent, Instant::now());
        }
        tokio::time::sleep(PACE).await;
    }
}

fn nap(record: &Mutex<Record>, over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        let from = Instant::now();
        std::thread::sleep(NAP);
        let to = Instant::now();
        if to.duration_since(from) > NAP + SLOW {
            let mut record = record.lock().unwrap();
            record.held_up.push(Span { from, to });
            record.pauses.push(Span { from, to });
        }
    }
}

impl Drop for Conditions {
    fn drop(&mut self) {
        self.writes.abort();
        self.over.store(true, Ordering::Release);
    }
}

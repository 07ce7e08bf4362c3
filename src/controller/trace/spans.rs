//! Makes spans of what was noted.

use opentelemetry::{
    Array, InstrumentationScope, KeyValue, StringValue, Value,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::recording::{Noted, Prune, Recording, count, span_id};
use beatkeeper_core::{
    report::status::Clocks,
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};

/// The spans of a reconciliation of this registration that has just ended. The root is the first one.
pub(super) fn of(recording: &mut Recording, registration: &Key, clocks: Clocks) -> Vec<SpanData> {
    let noted = std::mem::take(&mut recording.spans);
    let prunes = std::mem::take(&mut recording.prunes);
    let root = Noted {
        id: recording.root,
        parent: SpanId::INVALID,
        name: "reconcile",
        is_call: false,
        began: recording.began,
        ended: clocks.now,
        attributes: about(recording, registration, &noted, &prunes),
        status_message: recording.status_message.take(),
    };
    let prunes = prunes.into_iter().map(|prune| span_of(prune, recording.root));
    let all = std::iter::once(root).chain(noted).chain(prunes);
    all.map(|noted| data(noted, recording, clocks)).collect()
}

/// The attributes of the root.
fn about(
    recording: &Recording,
    registration: &Key,
    noted: &[Noted],
    prunes: &[Prune],
) -> Vec<KeyValue> {
    let attempts = noted.iter().filter(|noted| noted.name == "plan").count();
    let mut attributes = vec![
        KeyValue::new("k8s.namespace.name", registration.namespace.clone()),
        KeyValue::new("beatkeeper.registration", registration.to_string()),
        KeyValue::new("beatkeeper.attempts", count(attempts)),
        KeyValue::new("beatkeeper.pruned", count(recording.pruned)),
        KeyValue::new("beatkeeper.held", count(recording.held)),
    ];
    if recording.calls_left_out > 0 {
        let left_out = count(recording.calls_left_out);
        attributes.push(KeyValue::new("beatkeeper.calls_left_out", left_out));
    }
    if let Some(lag) = prunes.iter().map(lag).max_by(f64::total_cmp) {
        let name = |prune: &Prune| StringValue::from(prune.instance.clone());
        let names = Array::String(prunes.iter().map(name).collect());
        attributes.push(KeyValue::new("beatkeeper.instance", Value::Array(names)));
        attributes.push(KeyValue::new("beatkeeper.prune.lag", lag));
    }
    attributes
}

/// A prune lasts from the deadline until the API server has confirmed it. So it begins before the reconciliation.
fn span_of(prune: Prune, root: SpanId) -> Noted {
    let after = |name: &'static str, moment: Option<MonotonicTime>| {
        let seconds = moment?.since(prune.why.deadline).as_secs_f64();
        Some(KeyValue::new(name, seconds))
    };
    let mut attributes = vec![
        KeyValue::new("beatkeeper.instance", prune.instance.clone()),
        KeyValue::new("beatkeeper.lease", prune.lease.clone()),
        KeyValue::new("beatkeeper.prune.lag", lag(&prune)),
    ];
    attributes.extend(after("beatkeeper.prune.live_read_after_deadline", prune.why.read));
    attributes.extend(after("beatkeeper.prune.probe_sent_after_deadline", prune.why.proof));
    attributes.extend(after("beatkeeper.prune.write_sent_after_deadline", prune.written));
    Noted {
        id: span_id(),
        parent: root,
        name: "prune",
        is_call: false,
        began: prune.why.deadline,
        ended: prune.confirmed,
        attributes,
        status_message: None,
    }
}

/// From the deadline until the API server has confirmed the prune, in seconds, as the metric has it.
fn lag(prune: &Prune) -> f64 {
    prune.confirmed.since(prune.why.deadline).as_secs_f64()
}

fn data(noted: Noted, recording: &Recording, clocks: Clocks) -> SpanData {
    let wall = |moment: MonotonicTime| {
        clocks.wall.checked_sub(clocks.now.since(moment)).unwrap_or(clocks.wall).into()
    };
    let status = noted.status_message.map_or(Status::Unset, Status::error);
    SpanData {
        span_context: SpanContext::new(
            recording.id,
            noted.id,
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: noted.parent,
        parent_span_is_remote: false,
        span_kind: if noted.is_call { SpanKind::Client } else { SpanKind::Internal },
        name: noted.name.into(),
        start_time: wall(noted.began),
        end_time: wall(noted.ended),
        attributes: noted.attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status,
        instrumentation_scope: InstrumentationScope::builder("beatkeeper")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

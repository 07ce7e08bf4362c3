//! What this replica knows of one instance, for a person who asks why it is in its state (`/explain`).
//!
//! Nothing is decided here, and nothing is changed: the outage guard is not asked again. Records, trackers and the last
//! report are turned into spans of time that need no clock to be understood.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::{
    InstanceState,
    explain::{
        ExplainDecision, ExplainFoundBy, ExplainGap, ExplainLease, ExplainMinReady, ExplainOutage,
        ExplainPresence, ExplainProof, ExplainProvenance, ExplainReplica, Explanation,
    },
};

use crate::{
    carriers::silence::Finding,
    decide::evidence::Evidence,
    liveness::{
        index::{Presence, Provenance, Record},
        outage_guard::{OutageArea, OutageGuard},
        probe_tracker::{self, ProbeTracker},
        proven_time::{Gap, ProvenTime},
        ttl::TtlHistory,
        unproven::Unproven,
    },
    objects::registration::Registration,
    report::summary::DecisionSummary,
    vocabulary::{monotonic_time::MonotonicTime, pace::Pace, reason::Reason},
};

/// The most gaps that are told. Older ones are left out.
const GAPS_MAX: usize = 16;

/// What a replica knows at one moment.
pub struct Known<'a> {
    /// The registration.
    pub registration: &'a Registration,
    /// The ttls that it has had.
    pub ttl: &'a TtlHistory,
    /// The record of the instance's Lease, and the time between its last two beats.
    pub record: Option<(&'a Record, Option<Duration>)>,
    /// What gateways say of it; none if there are none.
    pub carried: Option<Carried>,
    /// How far time is proven.
    pub path: &'a Path,
    /// The last report, and when it was made. None if this replica has not decided in this term.
    pub report: Option<(&'a DecisionSummary, MonotonicTime)>,
    /// When it looks at the registration again.
    pub next_look: Option<MonotonicTime>,
    /// The present moment.
    pub now: MonotonicTime,
}

/// What gateways say of an instance.
pub struct Carried {
    /// The name of the gateway that brought its last beat; none if the beat renewed the Lease.
    pub gateway: Option<Arc<str>>,
    /// What its silence says.
    pub finding: Finding,
}

/// What is known of the path of a registration's beats, without asking the guard again.
pub struct Path {
    evidence: Evidence,
    failure: Option<Unproven>,
    broken: Option<(OutageArea, MonotonicTime)>,
    /// When the guard found it broken before.
    missing: ProvenTime,
}

impl Path {
    /// What the probe and the guard know now.
    pub fn known(registration: &Registration, path: &ProbeTracker, guard: &OutageGuard) -> Self {
        let key = &registration.key;
        Self {
            evidence: Evidence::known(registration, path, guard),
            failure: path.failure().cloned(),
            broken: guard.found(key),
            missing: guard.gaps(key).cloned().unwrap_or_default(),
        }
    }
}

/// Explains an instance.
pub fn explain(replica: ExplainReplica, instance: &str, known: &Known<'_>) -> Explanation {
    let Known { registration, path, next_look, now, .. } = known;
    let key = &registration.key;
    let min_ready = registration.min_ready;
    let blank = Explanation::of(&key.namespace, &key.name, instance, replica, min_ready);
    Explanation {
        lease: known.record.map(|(record, interval)| lease(known, record, interval)),
        proof: proof(known),
        outage: path.broken.as_ref().map(|(area, since)| outage(known, area, *since)),
        min_ready: protected(known),
        decision: decision(known, instance),
        next_look: next_look.map(|next| until(next, *now).max(0.0)),
        ..blank
    }
}

impl Known<'_> {
    /// The pace that applies to the instance (L8).
    fn pace(&self, record: &Record) -> Pace {
        let interval = self.registration.interval;
        Pace { ttl: self.ttl.at(record, interval), interval }
    }

    /// The deadline. While gateways hold the instance, only writes of its Lease tell one.
    fn deadline(&self, record: &Record) -> MonotonicTime {
        let (evidence, pace) = (&self.path.evidence, self.pace(record));
        let finding = self.carried.as_ref().map(|carried| carried.finding);
        let deadline = evidence.deadline_by(finding, record, pace);
        deadline.unwrap_or_else(|| evidence.deadline(record.silence(), pace))
    }
}

fn lease(known: &Known<'_>, record: &Record, interval: Option<Duration>) -> ExplainLease {
    let (now, deadline) = (known.now, known.deadline(record));
    let silence = record.silence();
    ExplainLease {
        name: record.lease.to_string(),
        presence: match record.presence {
            Presence::Watched => ExplainPresence::Watched,
            Presence::Missing => ExplainPresence::Missing,
            Presence::Unlabelled => ExplainPresence::Unlabelled,
        },
        gateway: known.carried.as_ref().and_then(|it| it.gateway.as_deref()).map(str::to_owned),
        last_change: seconds(now.since(record.seen)),
        provenance: match record.provenance {
            Provenance::Changed => ExplainProvenance::Changed,
            Provenance::Inherited => ExplainProvenance::Inherited,
            Provenance::Granted => ExplainProvenance::Granted,
            Provenance::Restored => ExplainProvenance::Restored,
        },
        silence: seconds(silence.until(now)),
        last_interval: interval.map(seconds),
        pace_kept: seconds(record.rhythm.kept(known.registration.pace(), record.seen)),
        ttl: seconds(known.pace(record).ttl),
        deadline: until(deadline, now),
        gaps: gaps(known.path, silence.since, known.pace(record), now),
        live_read: record.silent_at.map(|sent| seconds(now.since(sent))),
        read_after_deadline: record.silent_at.is_some_and(|sent| sent >= deadline),
        expired: record.expired_at.map(|at| seconds(now.since(at))),
        next_beat_wakes: record.next_beat_wakes(),
        published: record.published,
    }
}

/// The gaps since an instance fell silent that are long enough to count at this pace, in the order of their ends.
fn gaps(path: &Path, since: MonotonicTime, pace: Pace, now: MonotonicTime) -> Vec<ExplainGap> {
    let counts = |gap: &Gap| gap.to.since(gap.from.max(since)) > pace.tolerance();
    let told = |found_by| {
        move |Gap { from, to }: Gap| {
            let from = seconds(now.since(from.max(since)));
            ExplainGap { from, to: seconds(now.since(to)), found_by }
        }
    };
    let of_probe =
        path.evidence.path.gaps_since(since).filter(counts).map(told(ExplainFoundBy::Probe));
    let of_guard = path.missing.gaps_since(since).filter(counts).map(told(ExplainFoundBy::Guard));
    let mut gaps: Vec<ExplainGap> = of_probe.chain(of_guard).collect();
    gaps.sort_by(|a, b| b.to.total_cmp(&a.to));
    gaps.drain(..gaps.len().saturating_sub(GAPS_MAX));
    gaps
}

fn proof(known: &Known<'_>) -> ExplainProof {
    let Known { path, now, .. } = known;
    let sent = path.evidence.probed;
    let deadline = known.record.map(|(record, _)| known.deadline(record));
    let reaches = |deadline| sent.is_some_and(|sent| probe_tracker::reaches(sent, deadline, *now));
    ExplainProof {
        last: sent.map(|sent| seconds(now.since(sent))),
        reaches_deadline: deadline.filter(|deadline| deadline <= now).map(reaches),
        message: path.failure.as_ref().map(ToString::to_string),
    }
}

fn outage(known: &Known<'_>, area: &OutageArea, since: MonotonicTime) -> ExplainOutage {
    let held_until = known
        .record
        .map(|(record, _)| known.path.evidence.held_until(record.silence(), known.pace(record)));
    ExplainOutage {
        namespace: match area {
            OutageArea::Namespace(name) => Some(name.clone()),
            OutageArea::Cluster => None,
        },
        since: seconds(known.now.since(since)),
        holds_for: held_until.map(|end| seconds(end.since(known.now))),
    }
}

fn protected(known: &Known<'_>) -> ExplainMinReady {
    let report = known.report.map(|(report, _)| report);
    let held = |report: &DecisionSummary| {
        report.lines.iter().filter(|line| line.reason == Reason::Protected).count()
    };
    ExplainMinReady {
        wanted: known.registration.min_ready,
        ready: report.map(|report| report.count(InstanceState::Ready)),
        held: report.map(held),
    }
}

fn decision(known: &Known<'_>, instance: &str) -> Option<ExplainDecision> {
    let (report, at) = known.report?;
    // The lines are in the order of their names.
    let place = report.lines.binary_search_by(|line| (*line.instance).cmp(instance)).ok()?;
    let line = &report.lines[place];
    Some(ExplainDecision {
        at: seconds(known.now.since(at)),
        state: line.state.as_str().to_owned(),
        reason: line.reason.as_str().to_owned(),
        message: line.message.clone(),
    })
}

/// The seconds of a span, to the millisecond.
pub fn seconds(span: Duration) -> f64 {
    Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

/// The seconds until a moment; negative if it has passed.
fn until(moment: MonotonicTime, now: MonotonicTime) -> f64 {
    if moment >= now { seconds(moment.since(now)) } else { -seconds(now.since(moment)) }
}

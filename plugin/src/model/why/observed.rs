//! The steps about life, as the leader holds them: the last beat that it saw, the deadline in proven time, the live read
//! after it, the proof of the path, the outage guard and minReady.

use beatkeeper_api::{
    duration,
    explain::{ExplainLease, ExplainPresence, ExplainProvenance, Explanation},
};
use beatkeeper_core::vocabulary::reason::Reason;
use jiff::Timestamp;

use super::{
    case::Case,
    leader::{Decided, duration as told, span},
    step::{Mark, Step},
};
use crate::times;

/// What is compared may differ by this many seconds, as it is rounded.
const ROUNDED: f64 = 0.05;

/// The steps. `at` is what the instance's own clock says of its last beat.
pub(super) fn steps(
    case: &Case<'_>,
    explanation: &Explanation,
    lease: &ExplainLease,
    at: Timestamp,
) -> Vec<Step> {
    let decided = Decided::of(case);
    let reason = Reason::read(decided.reason);
    let mut steps: Vec<Step> = watch(lease).into_iter().collect();
    steps.push(last_beat(case, lease, at));
    steps.push(deadline(case, lease));
    steps.extend(live_read(lease));
    steps.push(proof(explanation, lease));
    steps.push(guard(explanation, reason));
    steps.extend(min_ready(explanation, reason));
    steps
}

/// Does the leader's watch show its beats?
fn watch(lease: &ExplainLease) -> Option<Step> {
    let text = match lease.presence {
        ExplainPresence::Watched => return None,
        ExplainPresence::Missing => {
            "the leader's watch shows the Lease no longer; a live read decides whether it is gone"
        }
        ExplainPresence::Unlabelled => {
            "the Lease has lost its label, so the leader reads it at its deadlines alone"
        }
    };
    Some(Step::new("watch", Mark::Trouble, text))
}

fn last_beat(case: &Case<'_>, lease: &ExplainLease, at: Timestamp) -> Step {
    let (ago, at) = (span(lease.last_change), times::full(at));
    let interval = duration::format(case.view.interval);
    let mut text = match lease.provenance {
        _ if let Some(gateway) = &lease.gateway => {
            format!("brought by gateway {gateway} {ago} ago; one is due every {interval}")
        }
        ExplainProvenance::Changed => {
            format!("seen {ago} ago; the instance says at {at}; one is due every {interval}")
        }
        ExplainProvenance::Restored => format!(
            "none seen since its Lease was put back {ago} ago with a beat of {at}; one is due every {interval}"
        ),
        ExplainProvenance::Inherited | ExplainProvenance::Granted => format!(
            "none seen since the leader's process found it {ago} ago with a beat of {at}; one is due every {interval}"
        ),
    };
    if let Some(before) = lease.last_interval {
        text.push_str(&format!(", and the last one came {} after the one before", span(before)));
    }
    let silent = told(lease.last_change);
    let mark = match silent {
        silent if silent >= told(lease.ttl) => Mark::Trouble,
        silent if silent >= case.view.overdue_after() => Mark::Note,
        _ => Mark::Fine,
    };
    Step::new("last beat", mark, text)
}

/// When does its ttl pass, counted in time in which its beats could have arrived?
fn deadline(case: &Case<'_>, lease: &ExplainLease) -> Step {
    let ttl = duration::format(told(lease.ttl));
    let mut text = match lease.deadline {
        left if left > 0.0 => format!("its ttl of {ttl} passes in {} of proven time", span(left)),
        passed => format!("its ttl of {ttl} passed {} ago in proven time", span(-passed)),
    };
    if lease.ttl > case.view.ttl.as_secs_f64() + ROUNDED {
        let now = duration::format(case.view.ttl);
        text.push_str(&format!(
            "; this is the former ttl, as it has not been seen to follow {now}"
        ));
    }
    let before = lease.silence - lease.last_change;
    if before > ROUNDED {
        let before = span(before);
        text.push_str(&format!("; an earlier process has proven {before} of its silence"));
    }
    let moved = lease.deadline - (lease.ttl - lease.silence);
    if moved > ROUNDED && !lease.gaps.is_empty() {
        text.push_str(&format!(
            "; {} moved it by {}, as beats could not be written or seen meanwhile",
            match lease.gaps.len() {
                1 => "a gap".to_owned(),
                several => format!("{several} gaps"),
            },
            span(moved)
        ));
    }
    if let Some(expired) = lease.expired {
        let ago = span(expired);
        text.push_str(&format!(
            "; {ago} ago it was decided to be dead, and only a beat revives it"
        ));
    }
    let mark = if lease.deadline > 0.0 { Mark::Fine } else { Mark::Trouble };
    Step::new("deadline", mark, text)
}

/// The read of its Lease after the deadline, without which nothing is pruned.
fn live_read(lease: &ExplainLease) -> Option<Step> {
    let text = match (lease.live_read, lease.deadline > 0.0) {
        (_, true) => return None,
        (Some(sent), _) if lease.read_after_deadline => {
            format!("sent {} ago, after the deadline: the Lease had not changed", span(sent))
        }
        _ => "none since the deadline; before one it is not pruned".to_owned(),
    };
    Some(Step::new("live read", Mark::Note, text))
}

/// Can beats be written, and are they seen?
fn proof(explanation: &Explanation, lease: &ExplainLease) -> Step {
    let proof = &explanation.proof;
    let last = proof.last.map_or_else(
        || "nothing is proven yet".to_owned(),
        |last| format!("the last probe that came back was sent {} ago", span(last)),
    );
    let waits = lease.deadline <= 0.0 && proof.reaches_deadline != Some(true);
    match &proof.message {
        Some(why) => {
            let text = format!(
                "the leader's probe does not come back, so nothing is pruned: {why}; {last}"
            );
            let mark = if waits { Mark::Trouble } else { Mark::Note };
            Step::new("proof", mark, text)
                .with_remedy_if(waits, "See why the operator cannot renew its own probe: its log.")
        }
        None if proof.last.is_none() => Step::new("proof", Mark::Note, last),
        None if waits => Step::new("proof", Mark::Note, format!("{last}, before the deadline")),
        None => {
            Step::new("proof", Mark::Fine, format!("beats can be written and are seen: {last}"))
        }
    }
}

/// Do the beats of the others arrive?
fn guard(explanation: &Explanation, reason: Option<Reason>) -> Step {
    let Some(outage) = &explanation.outage else {
        return Step::new("guard", Mark::Fine, "the outage guard has found no broken path");
    };
    let place = match &outage.namespace {
        Some(namespace) => format!("namespace {namespace}"),
        None => "the whole cluster".to_owned(),
    };
    let found = format!(
        "the outage guard finds that for {} almost no beats arrive in {place}",
        span(outage.since)
    );
    if reason != Some(Reason::PathBroken) {
        return Step::new("guard", Mark::Note, found);
    }
    let held = outage
        .holds_for
        .map_or_else(String::new, |left| format!(" for {} more at most", span(left)));
    Step::new("guard", Mark::Trouble, format!("{found}: it holds the instance{held}"))
}

/// Does spec.protection.minReady hold it?
fn min_ready(explanation: &Explanation, reason: Option<Reason>) -> Option<Step> {
    let counted = explanation.min_ready;
    if counted.wanted == 0 {
        return None;
    }
    let (wanted, ready) = (counted.wanted, counted.ready?);
    let found = format!(
        "spec.protection.minReady is {wanted}, and of all instances {ready} beat and are ready"
    );
    Some(match reason {
        Some(Reason::Protected) => {
            Step::new("minReady", Mark::Trouble, format!("{found}: so the instance is held"))
        }
        _ if ready >= wanted => Step::new("minReady", Mark::Fine, found),
        _ => Step::new("minReady", Mark::Note, found),
    })
}

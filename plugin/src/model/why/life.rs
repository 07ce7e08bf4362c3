//! The steps about life: when did it beat last, when does its ttl pass, and what follows from silence?

use std::time::Duration;

use beatkeeper_api::{InstanceState, duration, heartbeat::Health, status::condition};
use beatkeeper_core::vocabulary::reason::Reason;
use jiff::{SignedDuration, Timestamp};

use super::{
    case::Case,
    observed,
    step::{Mark, Step},
};
use crate::times;

/// The steps.
pub fn steps(case: &Case<'_>) -> Vec<Step> {
    let Some(lease) = case.lease else { return Vec::new() };
    let Some(beat) = case.instance.beat else {
        let text = "it has never beaten: spec.renewTime of its Lease is missing or no time";
        return vec![Step::new("last beat", Mark::Trouble, text)];
    };
    let known = case.leader.and_then(|it| Some((it, it.lease.as_ref()?)));
    let mut steps = match known {
        Some((leader, lease)) => observed::steps(case, leader, lease, beat.at),
        None if case.instance.is_carried(case.now) => vec![unseen_beats(case, beat.at)],
        None => vec![last_beat(case, beat.at), deadline(case, beat.at)],
    };
    if !beat.ahead.is_zero() {
        let text = format!(
            "its clock is {}; this changes nothing, as only changes of renewTime count",
            times::difference(beat.ahead)
        );
        steps.push(Step::new("clock", Mark::Note, text));
    }
    if known.is_none() {
        steps.extend(hold(case));
    }
    let note = lease.heartbeat.content.note.as_ref();
    let note = note.map_or_else(String::new, |note| format!(": {note}"));
    let silent = case.instance.silent(case.now).is_some_and(|it| it >= case.view.longest_ttl());
    let says = if silent { "it last said" } else { "it says" };
    steps.push(match &lease.heartbeat.content.health {
        Ok(Health::Passing) if silent => {
            Step::new("health", Mark::Note, format!("{says} that it can serve{note}"))
        }
        Ok(Health::Passing) => {
            Step::new("health", Mark::Fine, format!("{says} that it can serve{note}"))
        }
        Ok(Health::Failing) => {
            Step::new("health", Mark::Trouble, format!("{says} that it cannot serve{note}"))
        }
        Ok(Health::Draining) => {
            Step::new("health", Mark::Trouble, format!("{says} that it is leaving{note}"))
        }
        Err(error) => Step::new("health", Mark::Trouble, error.to_string()),
    });
    steps
}

/// Its Lease does not tell its beats.
fn unseen_beats(case: &Case<'_>, at: Timestamp) -> Step {
    let ago = times::span(times::between(at, case.now));
    let text = format!(
        "its beats go through a gateway, and only the leader sees them; the last one that renewed its Lease came {ago} ago, \
         at {}",
        times::full(at)
    );
    Step::new("last beat", Mark::Note, text)
}

fn last_beat(case: &Case<'_>, at: Timestamp) -> Step {
    let silent = times::between(at, case.now);
    let interval = duration::format(case.view.interval);
    let text =
        format!("{} ago, at {}; one is due every {interval}", times::span(silent), times::full(at));
    let mark = match silent {
        silent if silent >= case.view.longest_ttl() => Mark::Trouble,
        silent if silent >= case.view.overdue_after() => Mark::Note,
        _ => Mark::Fine,
    };
    Step::new("last beat", mark, text)
}

fn deadline(case: &Case<'_>, at: Timestamp) -> Step {
    let ttl = case.view.longest_ttl();
    let deadline = at.saturating_add(SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX));
    let deadline = deadline.unwrap_or(Timestamp::MAX);
    let left = times::between(case.now, deadline);
    let ttl = duration::format(ttl);
    if left > Duration::ZERO {
        let text = format!(
            "its ttl of {ttl} passes in {}, at {}",
            times::span(left),
            times::full(deadline)
        );
        return Step::new("deadline", Mark::Fine, text);
    }
    let passed = times::between(deadline, case.now);
    let mut text = format!(
        "its ttl of {ttl} passed {} ago, at {}",
        times::span(passed),
        times::full(deadline)
    );
    let alive = matches!(
        case.instance.state,
        InstanceState::Ready | InstanceState::NotReady | InstanceState::Draining
    );
    if alive {
        text.push_str(
            "; the operator has not acted: it counts only time in which it has proof that beats could arrive, \
             or it does not run",
        );
        return Step::new("deadline", Mark::Trouble, text)
            .with_remedy("See that the operator runs, and its log.");
    }
    Step::new("deadline", Mark::Trouble, text)
}

/// What keeps it although its ttl has passed.
fn hold(case: &Case<'_>) -> Option<Step> {
    let held = case.instance.state == InstanceState::Held;
    if held {
        let reason = Reason::read(&case.instance.reason);
        let rule = match reason {
            Some(Reason::PathBroken) => "the outage guard holds it, for ten ttls at most",
            Some(Reason::PathUnproven) => "it is held until the operator's own probe comes back",
            Some(Reason::LeaseUnreadable) => "it is held until its Lease can be read",
            Some(Reason::GatewayCutOff) => {
                "the gateway of its last beat is cut off from the operator; it is held for ten ttls at most"
            }
            Some(Reason::NoGateway) => "it is held until a gateway has a stream to the operator",
            Some(Reason::GatewayUnproven) => "it is held until a gateway proves that beats arrive",
            Some(Reason::Protected) => "spec.protection.minReady holds it",
            _ => "it is held",
        };
        return Some(Step::new("hold", Mark::Trouble, rule));
    }
    let pruning_held =
        case.view.reported.condition(condition::PRUNING_HELD).filter(|it| it.holds)?;
    Some(Step::new(
        "hold",
        Mark::Note,
        format!("other instances are held: {}", pruning_held.message),
    ))
}

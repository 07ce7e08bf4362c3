//! The argument about one instance, step by step, as the operator holds it: from the spec to what is published.

pub mod case;
pub mod leader;
pub mod lease;
pub mod life;
mod observed;
pub mod place;
pub mod step;

use beatkeeper_api::{InstanceState, heartbeat, status::condition};
use beatkeeper_core::vocabulary::reason::{ConditionReason, Reason};
use jiff::Timestamp;

use super::{event::Transition, instance::Published, registration::RegistrationView, store::Store};
use case::Case;
use leader::{Decided, Leader};
use step::{Mark, Step};

/// The argument.
#[derive(Debug, Clone, PartialEq)]
pub struct Why {
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// What the leader has said.
    pub leader: Leader,
    /// The last transitions, the latest last.
    pub history: Vec<Transition>,
    /// What to do, in one sentence.
    pub remedy: String,
    /// Whether nothing has to be done.
    pub well: bool,
}

/// How many transitions are shown.
const TRANSITIONS: usize = 8;

/// Argues about an instance; `None` if the registration has none of this name.
pub fn why(
    store: &Store,
    view: &RegistrationView,
    instance: &str,
    events: &[Transition],
    leader: Leader,
    now: Timestamp,
) -> Option<Why> {
    let instance = view.instance(instance)?;
    let lease_name = instance.lease.clone();
    let lease_name =
        lease_name.unwrap_or_else(|| heartbeat::lease_name(&view.key.name, &instance.name));
    let leases = store.leases.get(&view.key);
    let lease = leases.and_then(|leases| leases.get(&lease_name));
    let case = Case { view, instance, lease, leader: leader.explanation(), now };
    let mut steps = vec![registration(view)];
    steps.extend(leader.step());
    steps.extend(lease::steps(&case, &lease_name));
    steps.extend(place::steps(&case));
    steps.extend(life::steps(&case));
    steps.push(rule(&case));
    steps.push(published(&case));
    steps.extend(leader::next(&case));
    let mut history: Vec<Transition> =
        events.iter().filter(|it| it.is_about(&instance.name, &lease_name)).cloned().collect();
    history.sort_by_key(|transition| transition.at);
    history.drain(..history.len().saturating_sub(TRANSITIONS));
    let (remedy, well) = remedy(&case, &steps);
    Some(Why { steps, leader, history, remedy, well })
}

/// Does the registration publish at all?
fn registration(view: &RegistrationView) -> Step {
    let reported = &view.reported;
    let ready = reported.condition(condition::READY);
    let (mark, text) = match ready {
        _ if !reported.any => (
            Mark::Trouble,
            "no operator has reported on it: none runs, or none watches this namespace".to_owned(),
        ),
        // Ready is true in a dry run, too, if nothing would prevent publishing.
        Some(ready) if ready.reason == ConditionReason::DryRun.as_str() => {
            (Mark::Trouble, "it is in a dry run: it decides, and publishes nothing".to_owned())
        }
        Some(ready) if ready.holds => {
            (Mark::Fine, format!("it publishes Service {} ({})", view.service_name, ready.reason))
        }
        Some(ready) if reported.is(condition::STALLED) => (
            Mark::Trouble,
            format!(
                "it is stalled ({}): dead instances leave, and none joins: {}",
                ready.reason, ready.message
            ),
        ),
        Some(ready) => (Mark::Trouble, format!("{}: {}", ready.reason, ready.message)),
        None => (Mark::Note, "the operator has not said whether it publishes".to_owned()),
    };
    Step::new("registration", mark, text)
}

/// Which rule decides?
fn rule(case: &Case<'_>) -> Step {
    let Decided { state, reason, message, ago } = Decided::of(case);
    let reported = case.instance;
    let is_reported = reported.state == state && *reported.reason == *reason;
    let mark = match state {
        InstanceState::Ready if *reason == *Reason::Beating.as_str() => Mark::Fine,
        InstanceState::Ready | InstanceState::Draining => Mark::Note,
        _ => Mark::Trouble,
    };
    let meaning = Reason::read(reason).map_or("", Reason::meaning);
    let mut text = format!("{} ({reason})", state.as_str());
    if let Some(since) = reported.since.filter(|_| is_reported) {
        text.push_str(&format!(" since {}", crate::times::full(since)));
    }
    if let Some(ago) = ago {
        text.push_str(&format!(", decided anew {} ago", crate::times::span(ago)));
    }
    match (message.is_empty(), meaning.is_empty()) {
        (false, _) => text.push_str(&format!(": {message}")),
        (true, false) => text.push_str(&format!(": {}", meaning.trim_end_matches('.'))),
        (true, true) => {}
    }
    if !is_reported {
        let (state, reason) = (reported.state.as_str(), &reported.reason);
        text.push_str(&format!("; the status does not say it yet, but {state} ({reason})"));
    }
    Step::new("decision", mark, text)
}

/// Is what is published what was decided?
fn published(case: &Case<'_>) -> Step {
    let Case { view, instance, .. } = case;
    let wanted = instance.state.is_published();
    let text = match instance.published {
        Published::No => "it is in no slice of the Service",
        Published::Ready => "the slices list it as ready: it gets traffic",
        Published::NotReady => "the slices list it as not ready: it gets no new connections",
        Published::Draining => "the slices list it as terminating: it gets no new connections",
    };
    let agrees = wanted == (instance.published != Published::No);
    let mut text = text.to_owned();
    let sharing: Vec<&str> = view
        .instances
        .iter()
        .filter(|other| other.name != instance.name)
        .filter(|other| other.addresses.iter().any(|it| instance.addresses.contains(it)))
        .map(|other| other.name.as_str())
        .collect();
    if !sharing.is_empty() {
        text.push_str(&format!(
            "; its address is also that of {}, and one address and port is published once",
            super::finding::named(sharing)
        ));
    }
    if !agrees {
        text.push_str(", and that is not what was decided");
    }
    let mark = match (agrees, instance.published) {
        (false, _) => Mark::Trouble,
        (true, Published::Ready) => Mark::Fine,
        (true, _) => Mark::Note,
    };
    let step = Step::new("published", mark, text);
    match agrees || !view.reported.is_published() {
        true => step,
        false => step.with_remedy(
            "For a second after a change this is normal; if it lasts, see the operator's log.",
        ),
    }
}

/// What to do, and whether all is well.
fn remedy(case: &Case<'_>, steps: &[Step]) -> (String, bool) {
    let Case { view, .. } = case;
    let trouble = steps.iter().any(|step| step.mark == Mark::Trouble);
    if !trouble {
        return ("Nothing.".to_owned(), true);
    }
    if let Some(remedy) = steps.iter().find_map(|step| step.remedy.clone()) {
        return (remedy, false);
    }
    if !view.reported.any {
        return (
            "See that the operator runs, and that it watches this namespace.".to_owned(),
            false,
        );
    }
    let own = Reason::read(Decided::of(case).reason).map(Reason::remedy);
    let of_registration = view.reported.unpublished();
    let of_registration = of_registration.and_then(|ready| ConditionReason::read(&ready.reason));
    let remedy = match (own, of_registration) {
        (Some("Nothing."), Some(registration)) | (None, Some(registration)) => {
            registration.remedy()
        }
        (Some(own), _) => own,
        (None, None) => "See the steps above.",
    };
    (remedy.to_owned(), false)
}

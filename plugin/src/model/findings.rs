//! What a person should know about a registration, the worst first.

use std::{collections::BTreeMap, time::Duration};

use beatkeeper_api::{InstanceState, duration, status::condition};
use beatkeeper_core::vocabulary::reason::{ConditionReason, Reason};
use jiff::Timestamp;

use super::{
    finding::{Finding, Severity, named},
    instance::{Instance, JudgedBy, Published},
    kind::Kind,
    publication::AddressBook,
    registration::RegistrationView,
    store::Store,
};

/// How long after the end of its ttl an instance may still be published before that is strange. The operator needs
/// milliseconds, and the clocks of API server and operator may differ.
const PRUNE_WITHIN: Duration = Duration::from_secs(5);

/// The findings about a registration.
pub fn of(
    view: &RegistrationView,
    book: &AddressBook,
    store: &Store,
    now: Timestamp,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    operator(view, now, &mut findings);
    conditions(view, &mut findings);
    instances(view, &mut findings);
    publication(view, book, store, &mut findings);
    clocks(view, &mut findings);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// Whether an operator does its work.
fn operator(view: &RegistrationView, now: Timestamp, findings: &mut Vec<Finding>) {
    const REMEDY: &str =
        "See that the operator runs, that this namespace is one of those it watches, and its log.";
    if !view.reported.any {
        let what = "no operator has reported on this registration yet";
        findings.push(Finding::new(Severity::Bad, what, REMEDY));
        return;
    }
    if !view.reported.current {
        let what = "the operator has not reported on the present spec yet";
        findings.push(Finding::new(Severity::Warning, what, REMEDY));
    }
    let overdue = view.instances.iter().filter(|it| is_left_over(it, view, now));
    let names: Vec<&str> = overdue.map(|it| it.name.as_str()).collect();
    if !names.is_empty() {
        let what = format!(
            "{} still published, and silent for longer than the ttl of {}: no operator has pruned {}",
            sentence(&names, "is", "are"),
            duration::format(view.longest_ttl()),
            if names.len() == 1 { "it" } else { "them" },
        );
        findings.push(Finding::new(Severity::Bad, what, REMEDY));
    }
}

/// Whether an instance should have been pruned, by all that can be seen.
fn is_left_over(instance: &Instance, view: &RegistrationView, now: Timestamp) -> bool {
    let is_past = instance.silent(now).is_some_and(|it| it > view.longest_ttl() + PRUNE_WITHIN);
    let says_so = matches!(instance.state, InstanceState::Held | InstanceState::Expired);
    is_past && !says_so && instance.published != Published::No && instance.reason != "PublishFailed"
}

fn conditions(view: &RegistrationView, findings: &mut Vec<Finding>) {
    let reported = &view.reported;
    let remedy = |reason: &str| {
        ConditionReason::read(reason).map_or_else(String::new, |it| it.remedy().to_owned())
    };
    if let Some(ready) = reported.unpublished() {
        let (severity, lead) = match ready.reason.as_str() {
            "DryRun" => (Severity::Warning, "it publishes nothing"),
            _ if reported.is(condition::STALLED) => {
                (Severity::Bad, "it is stalled: dead instances leave, and none joins")
            }
            _ => (Severity::Bad, "not everything is published as decided"),
        };
        let what = format!("{lead} ({}): {}", ready.reason, ready.message);
        findings.push(Finding::new(severity, what, remedy(&ready.reason)));
    }
    let available = reported.condition(condition::AVAILABLE).filter(|it| it.reason != "DryRun");
    if available.is_some_and(|available| !available.holds) && view.counts().serving() == 0 {
        let what = format!("no instance is ready: Service {} gives no answer", view.service_name);
        findings.push(Finding::new(Severity::Bad, what, "See the instances below."));
    }
    if let Some(conflict) = reported.condition(condition::NAME_CONFLICT).filter(|it| it.holds) {
        findings.push(Finding::new(Severity::Warning, conflict.message.clone(), ""));
    }
    if let Some(finalizers) = &view.ending {
        let what = format!(
            "it is being deleted, and waits for {}",
            named(finalizers.iter().map(String::as_str))
        );
        findings.push(Finding::new(Severity::Warning, what, ConditionReason::Deleting.remedy()));
    }
    // A stall already names them.
    if !reported.is(condition::STALLED) {
        let problems = view.problems.iter();
        findings.extend(problems.map(|problem| Finding::new(Severity::Bad, problem.clone(), "")));
    }
}

/// The instances that need a person, those with the same reason together.
fn instances(view: &RegistrationView, findings: &mut Vec<Finding>) {
    let mut groups: BTreeMap<(u8, &str), Vec<&Instance>> = BTreeMap::new();
    for instance in view.instances.iter().filter(|instance| instance.is_troubled()) {
        groups.entry((instance.rank(), &*instance.reason)).or_default().push(instance);
    }
    for instances in groups.values() {
        findings.extend(instances.first().map(|first| trouble(first, instances)));
    }
}

fn trouble(first: &Instance, instances: &[&Instance]) -> Finding {
    let names: Vec<&str> = instances.iter().map(|it| it.name.as_str()).collect();
    let reason = Reason::read(&first.reason);
    let remedy = reason.map_or("", Reason::remedy);
    let (severity, one, several) = match first.state {
        InstanceState::Expired => (Severity::Bad, "has expired", "have expired"),
        InstanceState::Rejected => (Severity::Bad, "is rejected", "are rejected"),
        InstanceState::Held => {
            (Severity::Warning, "is silent and stays published", "are silent and stay published")
        }
        InstanceState::NotReady => {
            (Severity::Warning, "gets no new connections", "get no new connections")
        }
        InstanceState::Waiting => {
            (Severity::Warning, "is not published yet", "are not published yet")
        }
        InstanceState::Cordoned => (Severity::Warning, "is cordoned", "are cordoned"),
        InstanceState::Ready | InstanceState::Draining => {
            (Severity::Note, "is late with its beat", "are late with their beats")
        }
    };
    let same = instances.iter().all(|it| it.message == first.message);
    let why = match reason {
        _ if same && !first.message.is_empty() => first.message.clone(),
        Some(reason) => without_stop(reason.meaning()).to_owned(),
        None => first.reason.to_string(),
    };
    let subject = sentence(&names, one, several);
    Finding::new(severity, format!("{subject} ({}): {why}", first.reason), remedy)
}

fn publication(
    view: &RegistrationView,
    book: &AddressBook,
    store: &Store,
    findings: &mut Vec<Finding>,
) {
    let service = &view.service_name;
    let publishes = !view.dry_run && !view.reported.is(condition::STALLED);
    if view.service.is_none() && publishes && view.reported.any && store.has_read(Kind::Service) {
        let what = format!("there is no Service {service}");
        findings.push(Finding::new(
            Severity::Bad,
            what,
            "The operator creates it within seconds; if not, see its log.",
        ));
    }
    if !view.orphans.is_empty() && store.has_read(Kind::Lease) && store.has_read(Kind::Pod) {
        let addresses = named(view.orphans.iter().map(String::as_str));
        let what = format!("published, and of no instance that is known: {addresses}");
        findings.push(Finding::new(
            Severity::Warning,
            what,
            "For a moment after a change this is normal; if it lasts, see the operator's log.",
        ));
    }
    let foreign = book.foreign.iter().filter(|(_, it)| it.how == Published::Ready);
    let strangers: Vec<&str> = foreign
        .map(|(address, _)| address.as_str())
        .filter(|address| !book.ours.contains_key(*address))
        .collect();
    if let Some(slice) = view.slices.iter().find(|slice| slice.foreign_manager.is_some())
        && !strangers.is_empty()
    {
        let mut strangers = strangers;
        strangers.sort_unstable();
        let manager = slice.foreign_manager.as_deref().unwrap_or_default();
        let what = format!(
            "clients of Service {service} are also sent to {}, which EndpointSlice {} lists; its manager is {manager}",
            named(strangers),
            slice.name
        );
        findings.push(Finding::new(
            Severity::Warning,
            what,
            "Find out who writes this slice; Beatkeeper does not touch it.",
        ));
    }
    endpoints_differ(view, book, findings);
}

/// Whether Endpoints and slices disagree. Endpoints follow the slices within a second.
fn endpoints_differ(view: &RegistrationView, book: &AddressBook, findings: &mut Vec<Finding>) {
    let Some(endpoints) = view.endpoints.as_ref().filter(|it| it.ours && !it.truncated) else {
        return;
    };
    let ready = book.ours.iter().filter(|(_, it)| it.how == Published::Ready);
    let differ = ready.clone().count() != endpoints.ready.len()
        || ready.into_iter().any(|(address, _)| !endpoints.ready.contains(address));
    if differ {
        let what =
            format!("Endpoints {} and the slices list different ready addresses", endpoints.name);
        findings.push(Finding::new(
            Severity::Note,
            what,
            "For a second after a change this is normal.",
        ));
    }
}

/// Clocks that are wrong. They decide nothing, and confuse people who read times.
fn clocks(view: &RegistrationView, findings: &mut Vec<Finding>) {
    let wrong =
        view.instances.iter().filter(|it| it.beat.is_some_and(|beat| !beat.ahead.is_zero()));
    let names: Vec<&str> = wrong.map(|it| it.name.as_str()).collect();
    if !names.is_empty() {
        let what = format!(
            "the clock of {} is wrong; this does not affect what is published",
            named(names)
        );
        findings.push(Finding::new(Severity::Note, what, ""));
    }
    let listed = view.instances.iter().filter(|it| it.judged == JudgedBy::Operator).count();
    let judged = view.instances.len() - listed;
    if judged > 0
        && view.reported.any
        && listed > 0
        && view.instances.len() > beatkeeper_api::status::LISTED_INSTANCES_MAX
    {
        let what = format!(
            "the operator's status lists {listed} instances, those with problems first; the state of the other {judged} is derived from their Leases and the slices"
        );
        findings.push(Finding::new(Severity::Note, what, ""));
    }
}

/// The names and a verb in the right number.
fn sentence(names: &[&str], one: &str, several: &str) -> String {
    let verb = if names.len() == 1 { one } else { several };
    format!("{} {verb}", named(names.iter().copied()))
}

fn without_stop(text: &str) -> &str {
    text.strip_suffix('.').unwrap_or(text)
}

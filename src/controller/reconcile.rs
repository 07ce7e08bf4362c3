//! Reconciling one registration, as a list of steps.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use beatkeeper_api::{InstanceState, ServiceRegistration};
use kube::runtime::controller::Action;
use rand::Rng;

use super::{
    adopt,
    apply::{self, Outcome},
    context::Context,
    desk,
    error::Error,
    metrics::Step,
    publish, rehearse, stage,
    verify::{self, Missing},
};
use crate::core::{
    decide,
    evidence::Evidence,
    gather,
    index::{Key, Settled},
    moment::Moment,
    plan::Plan,
    planning,
    registration::Registration,
    stage::Stage,
    standing,
    status::{self, Applied},
    ttl::TtlHistory,
    verdict::{Suspect, Verdict},
};

/// How often a plan is made anew at once when the world turns out to be another.
const ATTEMPTS: usize = 5;
/// After this long a registration is looked at even if nothing has asked for it.
const RESYNC: Duration = Duration::from_secs(600);

/// Reconciles on a task of its own, so that registrations share the cores, and a panic, which would
/// be a defect, stays with one of them.
pub(super) async fn run(
    object: Arc<ServiceRegistration>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let key = Key::of(&object.metadata);
    if !context.claim.holds() {
        return Ok(Action::await_change());
    }
    let result = tokio::spawn(reconcile(object, context.clone())).await;
    if result.is_err() {
        context.metrics.panicked();
    }
    if !context.world().has_registration(&key) {
        // It was deleted meanwhile: what this run remembered of it nobody would forget.
        context.forget(&key);
    }
    if !context.claim.holds() {
        // What could not be written any more is no failure: whoever leads next begins with all.
        return Ok(Action::await_change());
    }
    result.map_err(|_| Error::Panicked(key))?
}

async fn reconcile(
    object: Arc<ServiceRegistration>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    if object.metadata.deletion_timestamp.is_some() {
        // What it owns is the garbage collector's.
        return Ok(Action::await_change());
    }
    let mut registration = Registration::validate(&object);
    registration.dry_run |= context.settings.dry_run;
    let ttl = ttl_history(&registration, &context);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut stage = set_stage(&registration, &context).await;
        rehearse::recall(&registration, &mut stage, &context);
        let known =
            |stage: &Stage| judge(&registration, &ttl, stage, &Missing::default(), &context);
        let stage = adopt::begin(stage, &object, &registration, known, &context).await;
        let decision = decide(&registration, &ttl, &stage, &context).await;
        let plan = draw_up(&registration, &stage, &decision.verdicts, &context);
        let applied = match carry_out(&registration, &stage, plan, &context).await {
            Outcome::Done(applied) => stage.failed(applied),
            Outcome::Conflict(why) if attempt < ATTEMPTS => {
                tracing::debug!(registration = %registration.key, why, "planning anew");
                continue;
            }
            Outcome::Conflict(why) => {
                stage.failed(Applied { failure: Some(why), ..Applied::default() })
            }
        };
        if !context.claim.holds() {
            return Ok(Action::await_change());
        }
        let key = registration.key.clone();
        if applied.failure.is_none() {
            publish::events(&object, &registration, &decision.verdicts, &context);
            let pruned = context.remember(&key, &registration.uid, |memory| {
                memory.failures = 0;
                std::mem::take(&mut memory.pruning)
            });
            pruned.into_values().for_each(|deadline| context.metrics.pruned(deadline));
        }
        let applied = match applied.dry_run {
            Some(_) => applied,
            None => {
                Applied { published: gather::published(&registration, &context.world()), ..applied }
            }
        };
        let adoption_ended = adopt::ended(&registration, &stage, &decision.verdicts, &context);
        let applied = Applied { adoption_ended, ..applied };
        let failure = applied.failure.clone();
        let now = context.clock.now();
        let next = decision.pause(now);
        let next = stage.look_again.map_or(next, |moment| next.min(moment.since(now)));
        let Decision { verdicts, .. } = decision;
        let ready = status::ready_reason(stage.stall.as_ref(), &applied);
        context.metrics.decided(&key, &verdicts, ready);
        let report =
            publish::Report { object, registration, verdicts, stall: stage.stall, applied };
        desk::hand_in(report, &context);
        return match failure {
            Some(failure) => Err(Error::Publish { registration: key, failure, next }),
            None => Ok(Action::requeue(next)),
        };
    }
}

/// Decides about every registration once from what is known, without reads and writes, and has the
/// index note the outcome: so a term begins with the marks of an operator that has led all along.
pub(super) async fn warm_up(objects: &[Arc<ServiceRegistration>], context: &Context) {
    for object in objects.iter().filter(|object| object.metadata.deletion_timestamp.is_none()) {
        let registration = Registration::validate(object);
        let ttl = ttl_history(&registration, context);
        let stage = stage::as_known(&registration, context);
        judge(&registration, &ttl, &stage, &Missing::default(), context);
        // Beats come in meanwhile.
        tokio::task::yield_now().await;
    }
}

async fn set_stage(registration: &Registration, context: &Context) -> Stage {
    let _step = context.metrics.begin(Step::Stage);
    let stage = stage::set(registration, context).await;
    if stage.failure.is_some() {
        context.metrics.failed(Step::Stage);
    }
    stage
}

fn draw_up(
    registration: &Registration,
    stage: &Stage,
    verdicts: &[Verdict],
    context: &Context,
) -> Plan {
    let _step = context.metrics.begin(Step::Plan);
    let style = context.settings.style();
    planning::draw_up(registration, stage, verdicts, style, context.clock.clocks().wall)
}

async fn carry_out(
    registration: &Registration,
    stage: &Stage,
    plan: Plan,
    context: &Context,
) -> Outcome {
    let _step = context.metrics.begin(Step::Apply);
    if registration.dry_run {
        return rehearse::rehearse(registration, stage, &plan, context);
    }
    let outcome = apply::apply(registration, plan, context).await;
    let outcome = adopt::finish(outcome, registration, stage, context).await;
    if let Outcome::Done(Applied { failure: Some(_), .. }) = &outcome {
        context.metrics.failed(Step::Apply);
    }
    outcome
}

/// What was decided.
struct Decision {
    verdicts: Vec<Verdict>,
    missing: Missing,
    /// How often in a row something could not be made sure of.
    failed_reads: u32,
}

impl Decision {
    /// How long until time alone may change the decision.
    fn pause(&self, now: Moment) -> Duration {
        let Missing { unreadable, unproven } = &self.missing;
        let sure = |verdict: &&Verdict| {
            let suspect = verdict.lease.as_ref().and_then(|lease| lease.suspect.as_ref());
            suspect.is_none_or(|suspect| {
                !unreadable.contains_key(&suspect.lease)
                    && (unproven.is_none() || suspect.deadline.is_none())
            })
        };
        let next = self.verdicts.iter().filter(sure).filter_map(|verdict| verdict.look_again).min();
        let pause = next.map_or(RESYNC, |next| next.since(now)).min(RESYNC);
        if self.missing.nothing() { pause } else { pause.min(backoff(self.failed_reads)) }
    }
}

/// Decides; where an instance would be pruned, reads its Lease live first (client required) and
/// decides anew from what that shows.
async fn decide(
    registration: &Registration,
    ttl: &TtlHistory,
    stage: &Stage,
    context: &Context,
) -> Decision {
    let missing = Missing::default();
    let verdicts = judge(registration, ttl, stage, &missing, context);
    let suspects: Vec<Suspect> =
        verdicts.iter().filter_map(|verdict| verdict.lease.as_ref()?.suspect.clone()).collect();
    if suspects.is_empty() {
        return Decision { verdicts, missing, failed_reads: 0 };
    }
    let deadlines: HashMap<Arc<str>, Moment> = suspects
        .iter()
        .filter_map(|suspect| Some((suspect.lease.clone(), suspect.deadline?)))
        .collect();
    let missing = {
        let _step = context.metrics.begin(Step::Verify);
        verify::suspects(&registration.key, suspects, context).await
    };
    if !missing.nothing() {
        context.metrics.failed(Step::Verify);
    }
    let failed_reads = context.remember(&registration.key, &registration.uid, |memory| {
        let failed = if missing.nothing() { 0 } else { memory.failed_reads.saturating_add(1) };
        memory.failed_reads = failed;
        failed
    });
    if missing.unproven.is_some() {
        context.unproven().insert(registration.key.clone());
    }
    let verdicts = judge(registration, ttl, stage, &missing, context);
    note_pruning(registration, &verdicts, &deadlines, stage, context);
    Decision { verdicts, missing, failed_reads }
}

/// Notes who is to be pruned since which deadline, until the write is confirmed: it may take more
/// than one try.
fn note_pruning(
    registration: &Registration,
    verdicts: &[Verdict],
    deadlines: &HashMap<Arc<str>, Moment>,
    stage: &Stage,
    context: &Context,
) {
    let expired: HashMap<&Arc<str>, &Verdict> = verdicts
        .iter()
        .filter(|verdict| verdict.state == InstanceState::Expired)
        .filter_map(|verdict| Some((&verdict.lease.as_ref()?.settled.lease, verdict)))
        .collect();
    let published = |verdict: &Verdict| {
        let addresses = verdict.placement.iter().flat_map(|placement| &placement.addresses);
        addresses.into_iter().any(|address| stage.gathered.published.contains(address))
    };
    context.remember(&registration.key, &registration.uid, |memory| {
        // Whoever has beaten meanwhile is not to be pruned any more.
        memory.pruning.retain(|lease, _| expired.contains_key(lease));
        for (lease, deadline) in deadlines {
            if expired.get(lease).is_some_and(|verdict| published(verdict)) {
                memory.pruning.insert(lease.clone(), *deadline);
            }
        }
    });
}

/// Decides from what is known now, and has the index note the outcome. When a beat slips in between
/// it is decided again: otherwise that beat would have woken nobody, and its instance be pruned.
fn judge(
    registration: &Registration,
    ttl: &TtlHistory,
    stage: &Stage,
    missing: &Missing,
    context: &Context,
) -> Vec<Verdict> {
    let _step = context.metrics.begin(Step::Decide);
    let ports = standing::common_ports(registration, stage.service.as_deref());
    let owner_of = |address: IpAddr| context.world().owner_of_address(address);
    loop {
        let records = context.index().snapshot(&registration.key);
        let pods = gather::pods(&registration.key.namespace, &records, &context.world());
        let now = context.clock.now();
        let mut evidence = Evidence::gather(
            registration,
            ttl,
            &records,
            &context.path(),
            &mut context.guard(),
            &context.index(),
            &context.world(),
            now,
        );
        evidence.unproven.clone_from(&missing.unproven);
        let verdicts = decide::decide(&decide::Facts {
            registration,
            ttl,
            records: &records,
            pods: &pods.by_name,
            zones: &pods.zones,
            families: stage.families(),
            service: &registration.service_name,
            ports: &ports,
            published: &stage.gathered.published,
            publishes: &|address, port| gather::publishes(&stage.gathered.slices, address, port),
            ranges: &context.settings.outside_ranges,
            owner_of: &owner_of,
            unreadable: &missing.unreadable,
            evidence: &evidence,
            term_began: context.term_began(),
            adopted: &stage.adoption.instances,
            now,
        });
        let outcomes: Vec<Settled> = verdicts
            .iter()
            .filter_map(|verdict| Some(verdict.lease.as_ref()?.settled.clone()))
            .collect();
        if context.index().settle(&registration.key, &outcomes, now) {
            return verdicts;
        }
    }
}

fn ttl_history(registration: &Registration, context: &Context) -> TtlHistory {
    context.remember(&registration.key, &registration.uid, |memory| {
        // The watch keeps it up to date.
        memory.ttl.get_or_insert_with(|| TtlHistory::new(registration.ttl)).clone()
    })
}

/// How long to wait after so many failures in a row: from a tenth of a second to five, and not all
/// at once.
pub(super) fn backoff(failures: u32) -> Duration {
    let longest = Duration::from_millis(200) * 2_u32.pow(failures.min(5));
    longest.min(Duration::from_secs(5)).mul_f64(rand::rng().random_range(0.5..1.0))
}

/// What to do after an error: try again, each time later, but not later than the next deadline.
pub(super) fn retry(object: &ServiceRegistration, error: &Error, context: &Context) -> Action {
    let key = Key::of(&object.metadata);
    let uid = object.metadata.uid.clone().unwrap_or_default();
    let failures = context.remember(&key, &uid, |memory| {
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    });
    let pause = match error {
        Error::Publish { next, .. } => backoff(failures).min((*next).max(backoff(0))),
        Error::Panicked(_) => backoff(failures),
    };
    tracing::warn!(registration = %key, %error, ?pause, "will try again");
    Action::requeue(pause)
}

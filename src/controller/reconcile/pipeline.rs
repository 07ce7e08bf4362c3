//! Reconciles one registration in a list of steps.

use std::{collections::HashMap, sync::Arc, time::Duration};

use beatkeeper_api::ServiceRegistration;
use kube::runtime::controller::Action;

use crate::controller::{
    clock::NEAR,
    context::Context,
    error::Error,
    metrics::Step,
    reconcile::{
        adoption,
        apply::{self, Outcome},
        cordons,
        decide::{Decision, decide, judge, note_earlier, recall_earlier, ttl_history},
        dry_run, inputs, isolate,
        verify::Missing,
    },
    report::{readiness, status::Report, status_writer},
};
use beatkeeper_core::{
    decide::{
        cordons::Cordons,
        verdict::{Suspect, Verdict},
    },
    inputs::{Inputs, snapshot},
    liveness::ttl::TtlHistory,
    objects::registration::Registration,
    plan::{build, change_limits::Permits, write::Plan},
    report::{applied::Applied, published_verdicts, status, summary::DecisionSummary},
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};

/// How often a plan is made at most in one reconciliation, when its writes meet conflicts.
const ATTEMPTS: usize = 5;

/// After a rollback of the store: how soon to check again whether all Leases have been listed anew.
const UNTIL_READ_ANEW: Duration = Duration::from_millis(250);

/// Reconciles in a separate task. So registrations share the CPU cores, and a panic, which would be a defect,
/// affects one registration only.
pub(crate) async fn run(
    object: Arc<ServiceRegistration>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let key = Key::of(&object.metadata);
    if !context.leadership.holds() {
        return Ok(Action::await_change());
    }
    if context.read_access.is_wanting() {
        // An object that cannot be read is not absent. All registrations are woken when the kind can be read
        // again.
        return Ok(Action::await_change());
    }
    let uid = object.metadata.uid.clone().unwrap_or_default();
    if let Some(due) = context.remember(&key, &uid, |memory| memory.due) {
        context.clock.reach(due).await;
    }
    let result = tokio::spawn(context.process.task(reconcile(object, context.clone()))).await;
    if result.is_err() {
        context.metrics.panicked();
    }
    if !context.world().has_registration(&key) {
        // The registration was deleted in the meantime. No other code would remove what this run has added to
        // its memory.
        context.forget(&key);
    }
    if !context.leadership.holds() {
        // A write that was not sent because the claim ended is no failure: the next leader reconciles all
        // registrations.
        return Ok(Action::await_change());
    }
    result.map_err(|_| Error::Panicked(key))?
}

async fn reconcile(
    object: Arc<ServiceRegistration>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let mut registration = snapshot::registration(&object, &context.world());
    registration.dry_run |= context.settings.dry_run;
    let ttl = ttl_history(&registration, &context);
    let mut permits = Permits::default();
    let mut attempt = 0;
    loop {
        if context.index().awaits_relist() {
            return Ok(Action::requeue(UNTIL_READ_ANEW));
        }
        attempt += 1;
        let mut stage = gather_inputs(&registration, &context).await;
        dry_run::recall(&registration, &mut stage, &context);
        recall_earlier(&object, &registration, &mut stage, &context);
        stage.held_back = isolate::held_back(&registration, &context);
        let known =
            |stage: &Inputs| judge(&registration, &ttl, stage, &Missing::default(), &context);
        let mut stage = adoption::begin(stage, &object, &registration, known, &context).await;
        let decision = decide(&registration, &ttl, &stage, &context).await;
        let mut plan = build(&registration, &stage, &decision.verdicts, &mut permits, &context);
        stage.requeue_at = sooner(stage.requeue_at, permits.requeue_at());
        if !registration.dry_run
            && let Some(until) = apply::pause_endpoints(&mut plan, &registration, &context)
        {
            stage.requeue_at = sooner(stage.requeue_at, Some(until));
        }
        let applied =
            match carry_out(&registration, &stage, &decision.verdicts, plan, &context).await {
                Outcome::Done(applied) => applied.with_failure_of(&stage),
                Outcome::Conflict(why) if attempt < ATTEMPTS => {
                    tracing::debug!(registration = %registration.key, why, "planning anew");
                    continue;
                }
                Outcome::Conflict(why) => {
                    Applied { failure: Some(why), ..Applied::default() }.with_failure_of(&stage)
                }
            };
        if !context.leadership.holds() {
            return Ok(Action::await_change());
        }
        let later = cordons::mark(&registration, &context).await;
        stage.requeue_at = sooner(stage.requeue_at, later);
        let applied = Applied { former_ttl: former_ttl(&ttl, &decision), ..applied };
        return conclude(object, registration, stage, decision, applied, &context);
    }
}

/// The longest former ttl, if it still applies to an instance that has not adopted the new pace yet (L8).
fn former_ttl(ttl: &TtlHistory, decision: &Decision) -> Option<Duration> {
    let mut settled = decision.verdicts.iter().filter_map(Verdict::lease_decision);
    settled.any(|settled| settled.wanted.is_awaited()).then(|| ttl.longest())
}

/// Reports what was decided and applied. Returns when to reconcile again.
fn conclude(
    object: Arc<ServiceRegistration>,
    registration: Registration,
    mut stage: Inputs,
    decision: Decision,
    applied: Applied,
    context: &Arc<Context>,
) -> Result<Action, Error> {
    let key = registration.key.clone();
    if applied.failure.is_none() {
        // An address in a slice that the API server refuses to have written is not pruned yet.
        let all_written = stage.held_back.closed.is_empty();
        let pruned = context.remember(&key, &registration.uid, |memory| {
            memory.failures = 0;
            if all_written { std::mem::take(&mut memory.pruning) } else { HashMap::new() }
        });
        pruned.into_values().for_each(|deadline| context.metrics.pruned(deadline));
        note_earlier(&registration, &stage, context);
    }
    let adoption_ended = adoption::ended(&registration, &stage, &decision.verdicts, context);
    let cordons = Cordons::stand(&registration, &mut context.index());
    let mut applied = Applied { adoption_ended, cordons, ..applied };
    if applied.dry_run.is_none() {
        applied.published = snapshot::published(&registration, &context.world());
        applied.refused = isolate::settle(&registration, &mut stage, &decision.verdicts, context);
    }
    readiness::report(&registration, &stage, &decision.verdicts, &applied, context);
    let failure = applied.failure.clone();
    let now = context.clock.now();
    let next = decision.pause(now);
    let next = stage.requeue_at.map_or(next, |moment| next.min(moment.since(now)));
    let Decision { mut verdicts, .. } = decision;
    let expected_expiries = Suspect::expected_expiries(&verdicts);
    let next = context.remember(&key, &registration.uid, |memory| {
        let next = memory.requeue_at.take().map_or(next, |moment| next.min(moment.since(now)));
        memory.due = Some(now + next);
        memory.expected_expiries = expected_expiries;
        next
    });
    let deadline = verdicts.iter().filter_map(Verdict::deadline).min();
    context.probe.await_deadline(&key, deadline, context);
    let publish_not_ready = stage.service.as_ref().is_some_and(|it| it.publish_not_ready);
    published_verdicts::correct(&mut verdicts, stage.stall.as_ref(), &applied, publish_not_ready);
    let ready = status::ready_reason(stage.stall.as_ref(), &applied);
    context.metrics.decided(&key, &verdicts, ready);
    // The addresses are not needed any more, and there may be many of them.
    let account = DecisionSummary::of(verdicts, std::mem::take(&mut applied.published).all());
    let report = Report { object, registration, account, stall: stage.stall, applied };
    status_writer::submit(report, context);
    match failure {
        Some(failure) => Err(Error::Publish { registration: key, failure, next }),
        // The queue's timer fires a little early. [`run`] then waits for the exact moment.
        None => Ok(Action::requeue(next.saturating_sub(NEAR))),
    }
}

async fn gather_inputs(registration: &Registration, context: &Context) -> Inputs {
    let _step = context.metrics.begin(Step::Stage);
    let stage = inputs::set(registration, context).await;
    if stage.failure.is_some() {
        context.metrics.failed(Step::Stage);
    }
    stage
}

/// Plans the writes. Changes that a tenant can cause are rate-limited ([`temper`](beatkeeper_core::plan::change_limits)),
/// except in a dry run, which writes nothing.
fn build(
    registration: &Registration,
    stage: &Inputs,
    verdicts: &[Verdict],
    permits: &mut Permits,
    context: &Context,
) -> Plan {
    let _step = context.metrics.begin(Step::Plan);
    let (style, clocks) = (context.settings.style(), context.clock.clocks());
    let restrain = |endpoints| match registration.dry_run {
        true => endpoints,
        false => context.paces(&registration.key, |paces| {
            paces.endpoints.limit(endpoints, &stage.snapshot.slices, permits, clocks.now)
        }),
    };
    build::build_limited(registration, stage, verdicts, style, clocks.wall, restrain)
}

fn sooner(one: Option<MonotonicTime>, other: Option<MonotonicTime>) -> Option<MonotonicTime> {
    one.into_iter().chain(other).min()
}

async fn carry_out(
    registration: &Registration,
    stage: &Inputs,
    verdicts: &[Verdict],
    plan: Plan,
    context: &Context,
) -> Outcome {
    let _step = context.metrics.begin(Step::Apply);
    if registration.dry_run {
        return dry_run::dry_run(registration, stage, &plan, context);
    }
    let outcome = apply::apply(registration, stage, plan, context).await;
    let outcome = adoption::finish(outcome, registration, stage, verdicts, context).await;
    if let Outcome::Done(Applied { failure: Some(_), .. }) = &outcome {
        context.metrics.failed(Step::Apply);
    }
    outcome
}

/// The backoff after this many failures in a row: from 0.1 s to 5 s, with a random part, so that retries do not
/// come all at once.
pub(crate) fn backoff(failures: u32) -> Duration {
    let longest = Duration::from_millis(200) * 2_u32.pow(failures.min(5));
    longest.min(Duration::from_secs(5)).mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// The action after an error: a retry with growing backoff, but not later than the next deadline.
pub(crate) fn retry(object: &ServiceRegistration, error: &Error, context: &Context) -> Action {
    let key = Key::of(&object.metadata);
    if !context.world().has_registration(&key) {
        // Nothing of a deleted registration must be remembered.
        return Action::await_change();
    }
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

//! The report step: notes what was decided and applied, hands it to the tasks that report it, and says when to
//! reconcile again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use beatkeeper_api::InstanceState;
use kube::runtime::controller::Action;
use opentelemetry::trace::TraceId;

use super::{
    adoption::Adopter,
    apply::Outcome,
    decide::Decision,
    error::{PublishError, ReconcileError},
    gathering::Gathering,
    inputs::Snapshots,
    refused_addresses::RefusedAddresses,
    subject::Subject,
};
use crate::controller::{
    clock::{Clock, NEAR},
    cluster::Cluster,
    liveness::Liveness,
    metrics::process::Metrics,
    probe::proofs::Proofs,
    report::{pending::Report, readiness::Readiness, status_writer::StatusWriter},
    states::{Pruning, States},
};
use beatkeeper_core::{
    decide::{
        cordons::Cordons,
        verdict::{Suspect, Verdict},
    },
    inputs::snapshot,
    report::{
        conditions, published_verdicts,
        summary::{self, DecisionSummary},
    },
    vocabulary::{failure::Failure, monotonic_time::MonotonicTime},
};

/// At most this many prunes of one reconciliation are logged one by one.
const PRUNES_LOGGED: usize = 100;

/// Reports reconciliations.
pub(crate) struct ReportStep {
    pub(crate) clock: Clock,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) states: Arc<States>,
    pub(crate) proofs: Arc<Proofs>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) snapshots: Snapshots,
    pub(crate) adopter: Adopter,
    pub(crate) refused: RefusedAddresses,
    pub(crate) readiness: Readiness,
    pub(crate) status_writer: Arc<StatusWriter>,
}

impl ReportStep {
    /// Reports what was decided and applied. Returns when to reconcile again. `again_at` is when a step wants to be
    /// done again.
    ///
    /// # Errors
    /// [`ReconcileError::Publish`] if a step has failed.
    pub(crate) fn report(
        &self,
        subject: Subject,
        gathering: Gathering,
        decision: Decision,
        outcome: Outcome,
        again_at: Option<MonotonicTime>,
    ) -> Result<Action, ReconcileError> {
        let trace = subject.trace.clone();
        let _span = trace.step("report");
        let Gathering { inputs, failure: incomplete, .. } = gathering;
        let Outcome { applied, failure: unapplied, .. } = outcome;
        // Incomplete inputs have precedence over a failed write.
        let failure = incomplete.map(PublishError::from).or(unapplied.map(PublishError::from));
        let failure = failure.map(Arc::new);
        let mut applied = subject.with_former_ttl(&decision.verdicts, applied);
        applied.failure = failure.clone().map(Failure::from);
        self.trace_troubles(&subject, &decision.verdicts, failure.as_deref());
        if failure.is_none() {
            // An address in a slice that the API server refuses to have written is not pruned yet.
            let all_written = inputs.held_back.closed.is_empty();
            self.note_success(&subject, &decision.verdicts, all_written);
            self.snapshots.note_earlier(&subject.registration, &inputs);
        }
        let registration = &subject.registration;
        applied.adoption_ended = self.adopter.ended(registration, &inputs, &decision.verdicts);
        applied.cordons = Cordons::stand(registration, &mut self.liveness.index());
        let mut retry_refused = None;
        if applied.dry_run.is_none() {
            applied.published = snapshot::published(registration, &self.cluster.lock());
            (applied.refused, retry_refused) =
                self.refused.settle(registration, &inputs, &decision.verdicts);
        }
        self.readiness.report(registration, &inputs, &decision.verdicts, &applied);
        let again_at = again_at.into_iter().chain(retry_refused).min();
        let next = self.schedule(&subject, &decision, again_at);
        // The decision may be kept, and only the report says what is in the slices.
        let mut verdicts = Arc::unwrap_or_clone(decision.verdicts);
        let publish_not_ready = inputs.service.as_ref().is_some_and(|it| it.publish_not_ready);
        published_verdicts::correct(
            &mut verdicts,
            inputs.stall.as_ref(),
            &applied,
            publish_not_ready,
        );
        summary::tell_last_beats(&mut verdicts, &self.liveness.index(), subject.key());
        let ready = conditions::ready_reason(inputs.stall.as_ref(), &applied);
        self.metrics.decided(subject.key(), &verdicts, ready);
        // The addresses are not needed any more, and there may be many of them.
        let account = DecisionSummary::of(verdicts, std::mem::take(&mut applied.published).all());
        let Subject { object, registration, .. } = subject;
        let key = registration.key.clone();
        let (stall, at) = (inputs.stall, self.clock.now());
        let report = Report { object, registration, account, stall, applied, at };
        self.status_writer.submit(report);
        match failure {
            Some(source) => Err(ReconcileError::Publish { registration: key, source, next }),
            // The queue's timer fires a little early. The next run then waits for the exact moment.
            None => Ok(Action::requeue(next.saturating_sub(NEAR))),
        }
    }

    /// Notes that the registration was published. `all_written` says whether this includes all prunes.
    fn note_success(&self, subject: &Subject, verdicts: &[Verdict], all_written: bool) {
        let pruned = self.states.with(subject.key(), subject.uid(), |state| {
            state.failures = 0;
            if all_written { std::mem::take(&mut state.pruning) } else { HashMap::new() }
        });
        let now = self.clock.now();
        for (count, (lease, pruning)) in pruned.iter().enumerate() {
            self.metrics.pruned(pruning.deadline, subject.trace.id());
            subject.trace.pruned(lease, || instance_of(lease, verdicts), pruning, now);
            if count < PRUNES_LOGGED {
                log_prune(lease, pruning, subject.trace.id(), now);
            }
        }
        if pruned.len() > PRUNES_LOGGED {
            tracing::info!(more = pruned.len() - PRUNES_LOGGED, "pruned more instances");
        }
    }

    /// Notes in the trace what makes it worth sending besides prunes: more held instances than before, and a failure
    /// that is the first in a row.
    fn trace_troubles(
        &self,
        subject: &Subject,
        verdicts: &[Verdict],
        failure: Option<&PublishError>,
    ) {
        if !subject.trace.is_on() {
            return;
        }
        let held = verdicts.iter().filter(|it| it.state == InstanceState::Held).count();
        let (more, first) = self.states.with(subject.key(), subject.uid(), |state| {
            (std::mem::replace(&mut state.held, held) < held, state.failures == 0)
        });
        subject.trace.held(held, more);
        if let Some(failure) = failure {
            subject.trace.failed(failure, first);
        }
    }

    /// Notes when time alone changes the decision, and what is expected then. Returns the time until then.
    fn schedule(
        &self,
        subject: &Subject,
        decision: &Decision,
        again_at: Option<MonotonicTime>,
    ) -> Duration {
        let now = self.clock.now();
        let pause = decision.pause(now);
        let next = again_at.map_or(pause, |moment| pause.min(moment.since(now)));
        let expected = Suspect::expected_expiries(&decision.verdicts);
        self.states.with(subject.key(), subject.uid(), |state| {
            state.due = Some(now + next);
            state.expected = expected;
        });
        let deadline = decision.verdicts.iter().filter_map(Verdict::deadline).min();
        self.proofs.await_deadline(subject.key(), deadline);
        next
    }
}

/// Logs why an instance was pruned: how long ago its deadline was, and how long after the deadline the live read and
/// the renewal of the probe were sent.
fn log_prune(lease: &str, pruning: &Pruning, trace_id: Option<TraceId>, now: MonotonicTime) {
    let Pruning { deadline, read, proof } = *pruning;
    let after = |sent: MonotonicTime| sent.since(deadline);
    tracing::info!(
        lease,
        deadline_passed = ?now.since(deadline),
        live_read_after_deadline = ?read.map(after),
        probe_sent_after_deadline = ?proof.map(after),
        trace_id = trace_id.map(tracing::field::display),
        "pruned"
    );
}

/// The name of the instance with this Lease; that of the Lease, if no verdict is about it.
fn instance_of(lease: &Arc<str>, verdicts: &[Verdict]) -> String {
    let mut about = verdicts.iter().filter_map(|it| Some((it, it.lease_decision()?)));
    let verdict = about.find(|(_, decision)| decision.lease == *lease);
    verdict.map_or(&**lease, |(verdict, _)| &*verdict.instance).to_owned()
}

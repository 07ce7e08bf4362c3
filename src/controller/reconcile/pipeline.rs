//! Reconciles one registration in a list of steps. The output of a step is the input of the next one.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::ServiceRegistration;
use kube::runtime::controller::Action;
use opentelemetry::KeyValue;
use tracing::Instrument;

use super::{
    apply::{Applier, Outcome},
    cordons::CordonWriter,
    decide::Decider,
    error::ReconcileError,
    inputs::InputGatherer,
    plan::{Planned, Planner},
    report::ReportStep,
    subject::Subject,
    verify::{Verified, Verifier},
};
use crate::controller::{
    api::ApiServer,
    backoff,
    cluster::Cluster,
    host::Process,
    liveness::Liveness,
    metrics::groups::Step,
    registrations::Registrations,
    states::States,
    telemetry::Telemetry,
    trace::recording::{Trace, count},
    watch::access::ReadAccess,
};
use beatkeeper_core::{
    decide::verdict::Suspect, inputs::snapshot, plan::change_limits::Permits, vocabulary::key::Key,
};

/// How often a plan is made at most in one reconciliation, when its writes meet conflicts.
const ATTEMPTS: usize = 5;

/// After a rollback of the store: how soon to check again whether all Leases have been listed again.
const UNTIL_READ_ANEW: Duration = Duration::from_millis(250);

/// Reconciles registrations.
pub(crate) struct Reconciler {
    pub(crate) dry_run: bool,
    pub(crate) api: ApiServer,
    pub(crate) telemetry: Telemetry,
    pub(crate) process: Process,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) states: Arc<States>,
    pub(crate) registrations: Arc<Registrations>,
    pub(crate) read_access: Arc<ReadAccess>,
    pub(crate) inputs: InputGatherer,
    pub(crate) decider: Arc<Decider>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) planner: Planner,
    pub(crate) applier: Applier,
    pub(crate) cordons: CordonWriter,
    pub(crate) report: ReportStep,
}

impl Reconciler {
    /// Reconciles in a separate task. So registrations share the CPU cores, and a panic, which would be a defect,
    /// affects one registration only.
    pub(crate) async fn run(
        self: Arc<Self>,
        object: Arc<ServiceRegistration>,
    ) -> Result<Action, ReconcileError> {
        let key = Key::of(&object.metadata);
        // An object that cannot be read is not absent. All registrations are woken when the kind can be read again.
        if !self.api.may_write() || self.read_access.is_wanting() {
            return Ok(Action::await_change());
        }
        let uid = object.metadata.uid.clone().unwrap_or_default();
        if let Some(due) = self.states.with(&key, &uid, |state| state.due) {
            self.telemetry.clock.reach(due).await;
        }
        let span = tracing::info_span!("reconcile", registration = %key);
        let this = self.clone();
        let task = async move { this.traced(object).await }.instrument(span);
        let result = tokio::spawn(self.process.task(task)).await;
        if result.is_err() {
            self.telemetry.metrics.panicked();
        }
        self.registrations.forget_if_gone(&key);
        if !self.api.may_write() {
            // A write that was not sent because the leadership ended is no failure: the next leader reconciles all
            // registrations.
            return Ok(Action::await_change());
        }
        result.map_err(|_| ReconcileError::Panicked(key))?
    }

    async fn traced(&self, object: Arc<ServiceRegistration>) -> Result<Action, ReconcileError> {
        let (key, trace) = (Key::of(&object.metadata), self.telemetry.traces.begin());
        let result = self.reconcile(self.subject(object, trace.clone())).await;
        self.telemetry.traces.end(&trace, &key);
        result
    }

    async fn reconcile(&self, subject: Subject) -> Result<Action, ReconcileError> {
        let mut permits = Permits::default();
        for attempt in 1.. {
            if self.liveness.index().awaits_relist() {
                return Ok(Action::requeue(UNTIL_READ_ANEW));
            }
            let gathering = self.inputs.gather(&subject).await;
            let inputs = &gathering.inputs;
            let proposal = self.decider.propose(&subject, inputs);
            let verified = self.verify(&subject, &proposal.suspects).await;
            let decision = self.decider.confirm(&subject, inputs, proposal, verified);
            let verdicts = &decision.verdicts;
            let planned = self.planner.plan(&subject, inputs, verdicts, &mut permits);
            let Planned { plan, again_at: planned_again } = planned;
            let outcome = match self.applier.apply(&subject, inputs, verdicts, plan).await {
                Ok(outcome) => outcome,
                Err(why) if attempt < ATTEMPTS => {
                    tracing::debug!(%why, "planning again");
                    continue;
                }
                Err(why) => Outcome::overtaken(why),
            };
            if !self.api.may_write() {
                break;
            }
            let cordons_again = self.cordons.mark(&subject.registration).await;
            let again = [gathering.again_at, planned_again, outcome.again_at, cordons_again];
            let again_at = again.into_iter().flatten().min();
            return self.report.report(subject, gathering, decision, outcome, again_at);
        }
        Ok(Action::await_change())
    }

    async fn verify(&self, subject: &Subject, suspects: &[Suspect]) -> Verified {
        if suspects.is_empty() {
            return Verified::default();
        }
        let metrics = &self.telemetry.metrics;
        let _step = metrics.begin(Step::Verify);
        let mut span = subject.trace.step("verify");
        span.note(|| KeyValue::new("beatkeeper.suspects", count(suspects.len())));
        let pace = Some(subject.registration.pace());
        let verified = self.verifier.verify(subject.key(), pace, suspects, &subject.trace).await;
        if !verified.is_complete() {
            metrics.failed(Step::Verify);
        }
        verified
    }

    fn subject(&self, object: Arc<ServiceRegistration>, trace: Trace) -> Subject {
        let mut registration = snapshot::registration(&object, &self.cluster.lock());
        registration.dry_run |= self.dry_run;
        let ttl = self.states.ttl_history(&registration.key, &registration.uid, registration.ttl);
        Subject { object, registration, ttl, trace }
    }

    /// The action after an error: a retry with growing backoff, but not later than the next deadline.
    pub(crate) fn retry(&self, object: &ServiceRegistration, error: &ReconcileError) -> Action {
        let key = Key::of(&object.metadata);
        if !self.registrations.is_known(&key) {
            // Nothing of a deleted registration must be remembered.
            return Action::await_change();
        }
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let failures = self.states.with(&key, &uid, |state| {
            state.failures = state.failures.saturating_add(1);
            state.failures
        });
        let pause = match error {
            ReconcileError::Publish { next, .. } => {
                backoff::after(failures).min((*next).max(backoff::after(0)))
            }
            ReconcileError::Panicked(_) => backoff::after(failures),
        };
        tracing::warn!(registration = %key, %error, ?pause, "will try again");
        Action::requeue(pause)
    }
}

//! The apply step: carries out a plan phase by phase. Each write is conditional on the state from which it was
//! planned. No other code writes slices and Endpoints.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};
use opentelemetry::KeyValue;

use super::{
    error::{ApplyError, PlanAgain, TakeoverError},
    refused_addresses::RefusedAddresses,
    subject::Subject,
    takeovers::{Completion, Takeovers},
    write::{ObjectWriter, Written},
};
use crate::controller::{
    api::ApiServer,
    backoff,
    clock::Clock,
    cluster::Cluster,
    error::ApiError,
    metrics::{groups::Step, process::Metrics},
    rollback::Rollback,
    states::States,
};
use beatkeeper_core::{
    decide::verdict::Verdict,
    inputs::{Inputs, snapshot},
    objects::published_addresses::PublishedAddresses,
    plan::{
        build::PlanSettings,
        hold_back,
        write::{Plan, Write},
    },
    report::{applied::Applied, dry_run},
    vocabulary::{monotonic_time::MonotonicTime, server_message},
};

/// How many writes run at once.
const SIDE_BY_SIDE: usize = 8;

/// After this time the search for refused addresses continues with the next plan, so that no prune waits for
/// the rest of it.
const LONGEST_SEARCH: Duration = Duration::from_secs(1);

/// The longest pause of Endpoints after an update.
const LONGEST_ENDPOINTS_PAUSE: Duration = Duration::from_secs(1);

/// What a plan has come to.
pub(crate) struct Outcome {
    pub(crate) applied: Applied,
    /// Why it was not carried out completely, if it was not, and a new plan would not be either.
    pub(crate) failure: Option<ApplyError>,
    /// When to check again whether the rest of an adoption can be done.
    pub(crate) again_at: Option<MonotonicTime>,
}

impl Outcome {
    fn done(applied: Applied) -> Self {
        Self { applied, failure: None, again_at: None }
    }

    fn failed(applied: Applied, failure: ApplyError) -> Self {
        Self { applied, failure: Some(failure), again_at: None }
    }

    /// The outcome of the last plan that may be made.
    pub(crate) fn overtaken(by: PlanAgain) -> Self {
        Self::failed(Applied::default(), ApplyError::Overtaken(by))
    }
}

/// Carries out plans.
pub(crate) struct Applier {
    pub(crate) api: ApiServer,
    pub(crate) clock: Clock,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) states: Arc<States>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) rollback: Arc<Rollback>,
    pub(crate) refused: RefusedAddresses,
    pub(crate) takeovers: Takeovers,
    pub(crate) style: PlanSettings,
}

impl Applier {
    /// Carries out a plan, and then the last step of an adoption. In a dry run it only reports them. The next plan
    /// sees the written objects at once. Client required.
    ///
    /// # Errors
    /// [`PlanAgain`].
    pub(crate) async fn apply(
        &self,
        subject: &Subject,
        inputs: &Inputs,
        verdicts: &[Verdict],
        plan: Plan,
    ) -> Result<Outcome, PlanAgain> {
        let _step = self.metrics.begin(Step::Apply);
        let mut span = subject.trace.step("apply");
        if subject.registration.dry_run {
            return Ok(Outcome::done(self.dry_run(subject, inputs, &plan)));
        }
        let outcome = match self.carry_out(subject, inputs, plan).await? {
            Outcome { applied, failure: None, .. } => {
                self.complete_adoption(subject, inputs, verdicts, applied).await?
            }
            failed => failed,
        };
        if let Some(why) = &outcome.failure {
            span.failed(why);
            self.metrics.failed(Step::Apply);
        }
        Ok(outcome)
    }

    /// Writes nothing. Remembers what would be published, so that the next decision is the same as it would be
    /// without the dry run.
    fn dry_run(&self, subject: &Subject, inputs: &Inputs, plan: &Plan) -> Applied {
        let published = dry_run::published_after(inputs, plan);
        self.states.with(subject.key(), subject.uid(), |state| {
            state.dry_run_published = Some(published.clone());
        });
        let dry_run = Some(dry_run::describe(inputs, plan, self.style));
        Applied {
            published: PublishedAddresses::as_ready(published),
            dry_run,
            ..Applied::default()
        }
    }

    async fn complete_adoption(
        &self,
        subject: &Subject,
        inputs: &Inputs,
        verdicts: &[Verdict],
        applied: Applied,
    ) -> Result<Outcome, PlanAgain> {
        match self.takeovers.complete(subject, inputs, verdicts).await {
            Ok(Completion::NothingLeft) => Ok(Outcome::done(applied)),
            Ok(Completion::NotBefore(moment)) => {
                Ok(Outcome { again_at: Some(moment), ..Outcome::done(applied) })
            }
            Ok(Completion::TakenOver) => Err(PlanAgain::TakenOver),
            Err(TakeoverError::Api(error)) if error.is_conflict() => {
                Err(PlanAgain::Conflict(error))
            }
            Err(error) => Ok(Outcome::failed(applied, ApplyError::Adoption(error))),
        }
    }

    async fn carry_out(
        &self,
        subject: &Subject,
        inputs: &Inputs,
        plan: Plan,
    ) -> Result<Outcome, PlanAgain> {
        let mut applied = Applied::default();
        let mut versions: HashMap<String, String> = HashMap::new();
        for phase in plan.phases {
            let results = self.send_phase(subject, inputs, phase, &versions).await;
            tracing::trace!("a phase is over");
            let (mut conflict, mut failures) = (None, Vec::new());
            for (write, result) in results {
                match result {
                    Ok(written) => {
                        applied.writes += 1;
                        versions.extend(written.map(|Written { name, version }| (name, version)));
                    }
                    Err(error) if error.is_namespace_ending() => {}
                    Err(error) if error.is_conflict() => conflict = Some(error),
                    Err(error) => failures.push((write, error)),
                }
            }
            if let Some(conflict) = conflict {
                return Err(PlanAgain::Conflict(conflict));
            }
            self.isolate(subject, inputs, &failures).await?;
            // A phase begins only when all of the one before it has succeeded (P3).
            if let Some((write, source)) = failures.pop() {
                let message = server_message::printable(&source.to_string(), write.generate_name());
                return Ok(Outcome::failed(applied, ApplyError::Write { message, source }));
            }
        }
        Ok(Outcome::done(applied))
    }

    /// Sends the writes of one phase. `versions` has the objects that earlier phases have written.
    async fn send_phase(
        &self,
        subject: &Subject,
        inputs: &Inputs,
        phase: Vec<Write>,
        versions: &HashMap<String, String>,
    ) -> Vec<(Write, Result<Option<Written>, ApiError>)> {
        let writes = phase.into_iter().map(|mut write| {
            if let Some(version) = write.slice_name().and_then(|name| versions.get(name)) {
                write.rebase(version);
            }
            write
        });
        // Slices are written first: the one list of all addresses takes the API server as long as several
        // slices, and fewer consumers read it.
        let (lists, slices): (Vec<_>, Vec<_>) = writes.partition(Write::is_of_endpoints);
        let send = |writes: Vec<Write>| {
            stream::iter(writes)
                .map(|write| async {
                    let about = || KeyValue::new("beatkeeper.write", write.to_string());
                    let span = subject.trace.write("write", about);
                    let result = self.send(subject, &write).await;
                    span.end(&result);
                    (write, result)
                })
                .buffer_unordered(SIDE_BY_SIDE)
        };
        let mut results: Vec<_> = send(slices).collect().await;
        let lists = match results.iter().all(|(_, result)| result.is_ok()) {
            true => lists,
            false => self.only_published(lists, subject, inputs),
        };
        results.extend(send(lists).collect::<Vec<_>>().await);
        results
    }

    /// Finds the addresses because of which the API server refuses some of these writes.
    ///
    /// # Errors
    /// [`PlanAgain`] if the API server may accept the rest without the refused addresses.
    async fn isolate(
        &self,
        subject: &Subject,
        inputs: &Inputs,
        failures: &[(Write, ApiError)],
    ) -> Result<(), PlanAgain> {
        let began = self.clock.now();
        let mut isolated = None;
        for (write, error) in failures.iter().filter(|(_, error)| error.is_refusal()) {
            let message = server_message::printable(&error.to_string(), write.generate_name());
            if self.refused.isolate(&subject.registration, inputs, write, &message).await {
                isolated = Some(message);
                if self.clock.now().since(began) >= LONGEST_SEARCH {
                    break;
                }
            }
        }
        isolated.map_or(Ok(()), |message| Err(PlanAgain::Refused(message)))
    }

    /// Limits writes of Endpoints after a write of a slice has failed: they add no address that is in no slice.
    /// Removals do not wait.
    fn only_published(&self, lists: Vec<Write>, subject: &Subject, inputs: &Inputs) -> Vec<Write> {
        let published = snapshot::published(&subject.registration, &self.cluster.lock());
        let before = inputs.snapshot.endpoints.as_deref();
        let allowed = |write| hold_back::without_unpublished(write, before, published.all());
        lists.into_iter().filter_map(allowed).collect()
    }

    /// Sends one write. Returns the written object, unless it was deleted.
    async fn send(&self, subject: &Subject, write: &Write) -> Result<Option<Written>, ApiError> {
        let namespace = &subject.key().namespace;
        tracing::debug!(%write, "writing");
        let (api, cluster, rollback) = (&self.api, &*self.cluster, &*self.rollback);
        let slices = ObjectWriter::<EndpointSlice>::new(namespace, write, api, cluster, rollback);
        let endpoints = ObjectWriter::<Endpoints>::new(namespace, write, api, cluster, rollback);
        match write {
            Write::CreateSlice(slice) => slices.create(slice).await,
            Write::UpdateSlice(slice, _) => slices.replace(slice).await,
            Write::DeleteSlice { name, uid, resource_version } => {
                slices.delete(name, uid, resource_version).await
            }
            Write::CreateEndpoints(object) => endpoints.create(object).await,
            Write::UpdateEndpoints(object, _) => {
                let began = self.clock.now();
                let result = endpoints.replace(object).await;
                if result.is_ok() {
                    self.pause_endpoints(subject, began);
                }
                result
            }
            Write::DeleteEndpoints { name, uid, resource_version } => {
                endpoints.delete(name, uid, resource_version).await
            }
        }
    }

    /// Lets the Endpoints rest after a write that began at this moment and has just ended.
    fn pause_endpoints(&self, subject: &Subject, began: MonotonicTime) {
        let ended = self.clock.now();
        let pause = backoff::after_write(ended.since(began)).min(LONGEST_ENDPOINTS_PAUSE);
        self.states.with(subject.key(), subject.uid(), |state| {
            state.endpoints_paused_until = ended + pause;
        });
    }
}

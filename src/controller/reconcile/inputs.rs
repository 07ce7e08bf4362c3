//! The inputs step: gathers what is known around a registration, ensures that the Service exists, and adds what is
//! adopted.

use std::{sync::Arc, time::Duration};

use super::{
    adoption::Adopter,
    decide::Decider,
    ensure_service::{Ensured, ServiceEnsurer},
    error::InputsError,
    gathering::Gathering,
    subject::Subject,
};
use crate::controller::{
    clock::Clock, cluster::Cluster, liveness::Liveness, metrics::groups::Step,
    metrics::process::Metrics, states::States,
};
use beatkeeper_core::inputs::Inputs;
use beatkeeper_core::inputs::preconditions;
use beatkeeper_core::plan::change_limits::SERVICES;
use beatkeeper_core::{
    inputs::{
        earlier::Earlier,
        snapshot::{self, Snapshot},
    },
    objects::{decode::Unreadable, registration::Registration, service::ServiceView},
    vocabulary::monotonic_time::MonotonicTime,
};

/// A Service of another owner that is deleted is most often being replaced. The operator creates its own Service only
/// after this time.
const REPLACEMENT_GRACE: Duration = Duration::from_secs(10);

/// Why the Service does not have the ports of the spec yet, if there is no error.
const TOO_OFTEN: &str =
    "spec.ports has changed too often in a row, and the last change is made within a second";

/// Gathers the inputs of decisions.
pub(crate) struct InputGatherer {
    pub(crate) snapshots: Snapshots,
    pub(crate) services: ServiceEnsurer,
    pub(crate) adopter: Adopter,
    pub(crate) decider: Arc<Decider>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Reads what is known from the caches, without a client.
#[derive(Clone)]
pub(crate) struct Snapshots {
    pub(crate) clock: Clock,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) states: Arc<States>,
}

impl InputGatherer {
    /// Gathers the inputs. Ensures the Service and adopts what is to be adopted (client required), unless another
    /// owner prevents it.
    pub(crate) async fn gather(&self, subject: &Subject) -> Gathering {
        let registration = &subject.registration;
        let mut span = subject.trace.step("inputs");
        let mut gathering = {
            let _step = self.metrics.begin(Step::Inputs);
            self.ensure_service(registration).await
        };
        if let Some(why) = &gathering.failure {
            span.failed(why);
            self.metrics.failed(Step::Inputs);
        }
        self.snapshots.add_dry_run(registration, &mut gathering.inputs);
        self.snapshots.add_earlier(subject, &mut gathering.inputs);
        gathering.inputs.held_back =
            self.snapshots.states.with(subject.key(), subject.uid(), |it| {
                it.refusals.held_back(self.snapshots.clock.now())
            });
        let Some((adopted, foreign)) = self.adopter.look(subject, &mut gathering).await else {
            return gathering;
        };
        // Whether an instance that is found there beats already, so that it is not adopted.
        let verdicts = self.decider.judge(subject, &gathering.inputs);
        self.adopter.take_over(subject, &adopted, &foreign, &verdicts, &mut gathering).await;
        gathering
    }

    /// Gathers what is known (no client required), and ensures the Service (client required) unless another owner
    /// prevents it.
    async fn ensure_service(&self, registration: &Registration) -> Gathering {
        let snapshot = self.snapshots.take(registration);
        let known = snapshot.service.clone();
        // This must run even if nothing is published because of the owner of the Service: it notes that owner.
        let being_replaced = self.snapshots.being_replaced(registration, known.as_deref());
        if let Some(stall) =
            preconditions::stall(registration, known.as_deref(), &snapshot.conflicts)
        {
            return Gathering::new(snapshot, known, Some(stall));
        }
        if let Some(until) = being_replaced {
            let stall = preconditions::service_gone(registration);
            return Gathering::new(snapshot, None, Some(stall)).again_at(until);
        }
        if registration.dry_run {
            let (service, announced) = self.services.dry_run(registration, known);
            let stall = preconditions::stall(registration, Some(&service), &snapshot.conflicts);
            let mut gathering = Gathering::new(snapshot, Some(service), stall);
            gathering.inputs.announced.extend(announced);
            return gathering;
        }
        let states = &self.snapshots.states;
        if known.is_none()
            && let Err(until) =
                states.may(&registration.key, SERVICES, |limits| &mut limits.services)
        {
            // Another client deletes the Service again and again.
            let stall = preconditions::service_gone(registration);
            return Gathering::new(snapshot, None, Some(stall)).again_at(until);
        }
        match self.services.ensure(registration, known).await {
            Ok(Ensured::Unchanged(service)) => Gathering::new(snapshot, Some(service), None),
            Ok(Ensured::RateLimited(service, until)) => {
                let stall = preconditions::old_ports(registration, Some(&service), TOO_OFTEN);
                Gathering::new(snapshot, Some(service), stall).again_at(until)
            }
            Ok(Ensured::Written(service)) => {
                let snapshot = self.snapshots.take(registration);
                let stall = preconditions::stall(registration, Some(&service), &snapshot.conflicts);
                Gathering::new(snapshot, Some(service), stall)
            }
            Err(error) if error.is_namespace_ending() => Gathering::new(snapshot, None, None),
            Err(error) => {
                let service = snapshot.service.clone();
                let stall =
                    preconditions::old_ports(registration, service.as_deref(), &error.to_string());
                let failure = Some(InputsError::Service(error));
                Gathering { failure, ..Gathering::new(snapshot, service, stall) }
            }
        }
    }
}

impl Snapshots {
    /// Gathers what is known and changes nothing.
    pub(crate) fn as_known(&self, subject: &Subject) -> Inputs {
        let registration = &subject.registration;
        let snapshot = self.take(registration);
        let known = snapshot.service.clone();
        let stall = preconditions::stall(registration, known.as_deref(), &snapshot.conflicts);
        let mut inputs = Inputs::new(snapshot, known, stall);
        self.add_earlier(subject, &mut inputs);
        inputs
    }

    /// Gathers what is known around the registration. This includes one of its Pods that cannot be read, if there
    /// is one.
    fn take(&self, registration: &Registration) -> Snapshot {
        let (mut snapshot, pods) = {
            let cluster = self.cluster.lock();
            let pods: Vec<_> =
                cluster.unreadable_pods(&registration.key.namespace).cloned().collect();
            (snapshot::take(registration, &cluster), pods)
        };
        if !pods.is_empty() {
            let index = self.liveness.index();
            let has =
                |pod: &Unreadable| index.registrations_of_pod(&pod.key).contains(&registration.key);
            let pod = pods.into_iter().find(has);
            snapshot.conflicts.unreadable = snapshot.conflicts.unreadable.take().or(pod);
        }
        snapshot
    }

    /// Until when to wait for another client to create a deleted Service again; None if there is nothing to wait for.
    fn being_replaced(
        &self,
        registration: &Registration,
        known: Option<&ServiceView>,
    ) -> Option<MonotonicTime> {
        let now = self.clock.now();
        self.states.with(&registration.key, &registration.uid, |state| {
            if let Some(service) = known {
                state.foreign_service = service.owner.is_none();
                state.service_gone = None;
            }
            if known.is_some() || !state.foreign_service {
                return None;
            }
            let until = *state.service_gone.get_or_insert(now) + REPLACEMENT_GRACE;
            (now < until).then_some(until)
        })
    }

    /// In a dry run, bases the decision on what would be published now. After the dry run only what is published
    /// counts.
    fn add_dry_run(&self, registration: &Registration, inputs: &mut Inputs) {
        let published = self.states.with(&registration.key, &registration.uid, |state| {
            if !registration.dry_run {
                state.dry_run_published = None;
            }
            state.dry_run_published.clone()
        });
        if let Some(published) = published {
            inputs.snapshot.published = published;
        }
    }

    /// Adds the former addresses of the instances to inputs in which nothing may be changed. After a start only
    /// the status has them.
    fn add_earlier(&self, subject: &Subject, inputs: &mut Inputs) {
        if inputs.is_closed() {
            let status = subject.object.status.as_ref();
            let in_status = || status.map(Earlier::from_status).unwrap_or_default();
            inputs.earlier = self.states.with(subject.key(), subject.uid(), |state| {
                state.earlier.get_or_insert_with(|| (None, Arc::new(in_status()))).1.clone()
            });
        }
    }

    /// Notes the addresses of the instances after they have been published.
    pub(crate) fn note_earlier(&self, registration: &Registration, inputs: &Inputs) {
        if inputs.is_closed() || registration.dry_run {
            return;
        }
        self.states.with(&registration.key, &registration.uid, |state| {
            let noted = state.earlier.as_ref().map(|(generation, _)| *generation);
            if noted != Some(registration.generation) || registration.generation.is_none() {
                let earlier = Arc::new(Earlier::declared(registration));
                state.earlier = Some((registration.generation, earlier));
            }
        });
    }
}

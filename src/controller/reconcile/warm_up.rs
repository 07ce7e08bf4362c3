//! Decides about every registration once at the start of a term.

use std::sync::Arc;

use beatkeeper_api::ServiceRegistration;

use super::{decide::Decider, inputs::Snapshots, subject::Subject};
use crate::controller::{
    cluster::Cluster, liveness::Liveness, states::States, trace::recording::Trace,
};
use beatkeeper_core::inputs::{Inputs, snapshot};

/// Prepares the index for a term.
#[derive(Clone)]
pub(crate) struct WarmUp {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) states: Arc<States>,
    pub(crate) snapshots: Snapshots,
    pub(crate) decider: Arc<Decider>,
}

impl WarmUp {
    /// Decides about every registration once from what is known, without reads and writes, and notes the outcome in
    /// the index. So the index begins the term as if this process had led before. First the published instances of
    /// all registrations are noted, since the outage guard considers all of them at the first decision (L6).
    pub(crate) async fn run(&self, objects: &[Arc<ServiceRegistration>]) {
        self.for_each(objects, |subject, inputs| self.decider.note_published(subject, inputs))
            .await;
        self.liveness.guard().begin_term();
        self.for_each(objects, |subject, inputs| drop(self.decider.judge(subject, inputs))).await;
    }

    async fn for_each(
        &self,
        objects: &[Arc<ServiceRegistration>],
        step: impl Fn(&Subject, &Inputs),
    ) {
        for object in objects {
            let registration = snapshot::registration(object, &self.cluster.lock());
            let ttl =
                self.states.ttl_history(&registration.key, &registration.uid, registration.ttl);
            let (object, trace) = (object.clone(), Trace::default());
            let subject = Subject { object, registration, ttl, trace };
            step(&subject, &self.snapshots.as_known(&subject));
            // Beats can be processed between two registrations.
            tokio::task::yield_now().await;
        }
    }
}

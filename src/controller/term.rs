//! One term: the time during which this replica leads.

use std::sync::Arc;

use beatkeeper_api::ServiceRegistration;
use futures::{StreamExt, stream};
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::controller::{
    carriers::term::CarrierTerms,
    clock::Clock,
    gc::{abandoned::AbandonedObjects, leases::LeaseGc},
    host::Process,
    leader::leadership::Leadership,
    metrics::process::Metrics,
    observer::Observer,
    probe::proofs::Proofs,
    queue::{self, WorkQueue},
    reconcile::{pipeline::Reconciler, warm_up::WarmUp},
    report::{
        access::AccessReporter, gates::ReadinessGates, pending::PendingReports,
        readiness::Readiness,
    },
    states::States,
};
use beatkeeper_core::vocabulary::key::Key;

/// What the leader does in one scope.
pub(crate) struct Leader {
    /// The name of the scope, for the log.
    pub(crate) scope: String,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) clock: Clock,
    pub(crate) process: Process,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) leadership: Leadership,
    pub(crate) states: Arc<States>,
    pub(crate) reports: Arc<PendingReports>,
    pub(crate) gates: Arc<ReadinessGates>,
    pub(crate) queue: Arc<WorkQueue>,
    pub(crate) proofs: Arc<Proofs>,
    pub(crate) carriers: CarrierTerms,
    pub(crate) access: Arc<AccessReporter>,
    pub(crate) registrations: Store<ServiceRegistration>,
    pub(crate) warm_up: WarmUp,
    pub(crate) reconciler: Arc<Reconciler>,
    pub(crate) leases: LeaseGc,
    pub(crate) abandoned: AbandonedObjects,
    pub(crate) readiness: Readiness,
    /// How many registrations are reconciled at the same time.
    pub(crate) concurrency: u16,
}

impl Leader {
    /// Publishes in each term that this replica leads, until stopped. Returns when the running work has ended.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        let scope = &self.scope;
        while let Some(term) = stop.run_until_cancelled(self.leadership.leads()).await {
            tracing::info!(scope, "publishing begins");
            let over = stop.child_token();
            let work = async {
                self.lead(over.clone()).await;
                over.cancel();
            };
            let lost = async {
                let lost = over.run_until_cancelled(self.leadership.lost(term)).await;
                over.cancel();
                lost.is_some()
            };
            let (lost, ()) = tokio::join!(lost, work);
            self.end_term();
            if !lost {
                // The controller was stopped, or a part of the term has ended by itself.
                return;
            }
            tracing::info!(scope, "publishing has ended; observing goes on");
        }
    }

    /// Runs one term. The term begins with a proof. After the proof this replica has seen everything that the last
    /// leader saw. Without the proof, instances that its own watch has not shown yet would seem absent.
    async fn lead(&self, over: CancellationToken) {
        let began = self.clock.now();
        self.carriers.begin();
        let proven = async {
            tokio::select! {
                biased;
                () = self.proofs.prove_until_it_succeeds(began) => {}
                () = self.access.report_unproven() => {}
            }
        };
        if over.run_until_cancelled(proven).await.is_none() {
            return;
        }
        // The order matters: the channel delivers registrations that are woken from now on, and the store has all
        // others.
        self.states.begin_term();
        self.reports.clear();
        self.gates.lock().clear();
        self.observer.leads(true);
        let woken = self.queue.begin_term();
        let mut all = self.registrations.state();
        // The store returns the registrations in the order of a hash table.
        all.sort_unstable_by_key(|object| Key::of(&object.metadata));
        self.warm_up.run(&all).await;
        let leases = self.spawn(self.leases.clone().run(over.clone()), &over);
        let abandoned = self.spawn(self.abandoned.clone().run(over.clone()), &over);
        let readiness = self.spawn(self.readiness.clone().run(over.clone()), &over);
        let all: Vec<_> = all.iter().map(|object| ObjectRef::from_obj(&**object)).collect();
        let requests = stream::iter(all).chain(woken).take_until(over.cancelled_owned());
        let (run, retry) = (self.reconciler.clone(), self.reconciler.clone());
        queue::work_off(
            requests,
            self.registrations.clone(),
            self.concurrency,
            move |object| run.clone().run(object),
            move |object, error| retry.retry(object, error),
        )
        .await;
        // A panic is already logged, and it has ended the term.
        let _ = tokio::join!(leases, abandoned, readiness);
    }

    /// Spawns a task of the term. If it ends, also by a panic, the term ends.
    fn spawn(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
        over: &CancellationToken,
    ) -> JoinHandle<()> {
        let over = over.clone();
        tokio::spawn(self.process.task(async move {
            let _ended = over.drop_guard();
            task.await;
        }))
    }

    /// Ends a term. The metrics of the last decisions are removed, since they no longer hold.
    fn end_term(&self) {
        self.carriers.end();
        self.queue.end_term();
        self.states.end_term();
        self.observer.leads(false);
        // Only the registrations of this scope: another scope may lead again already.
        self.states.for_each_key(|key| self.metrics.forget(key));
    }
}

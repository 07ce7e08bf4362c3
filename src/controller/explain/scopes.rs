//! The scopes of this replica, which can be asked about their registrations.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use beatkeeper_api::{
    ServiceRegistration,
    explain::{ExplainReplica, Explanation},
    heartbeat,
};
use beatkeeper_core::{
    explain::{self, Carried, Known, Path},
    inputs::snapshot,
    liveness::{
        index::{Index, Record},
        ttl::TtlHistory,
    },
    objects::registration::Registration,
    vocabulary::{key::Key, monotonic_time::MonotonicTime, pace::Pace},
};
use kube::runtime::reflector::{ObjectRef, Store};

use crate::controller::{
    clock::Clock, cluster::Cluster, leader::leadership::Leadership, liveness::Liveness,
    queue::WorkQueue, report::pending::PendingReports, states::States,
};

/// What one scope knows of its registrations.
pub(crate) struct ScopeMemory {
    /// The namespace that it watches; None for all.
    pub(crate) namespace: Option<String>,
    pub(crate) registrations: Store<ServiceRegistration>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) states: Arc<States>,
    pub(crate) queue: Arc<WorkQueue>,
    pub(crate) reports: Arc<PendingReports>,
}

/// The scopes of this replica.
pub(crate) struct Scopes {
    identity: String,
    clock: Clock,
    leadership: Leadership,
    scopes: Mutex<Vec<ScopeMemory>>,
}

impl Scopes {
    pub(crate) fn new(identity: &str, clock: Clock, leadership: Leadership) -> Self {
        Self { identity: identity.to_owned(), clock, leadership, scopes: Mutex::default() }
    }

    fn scopes(&self) -> MutexGuard<'_, Vec<ScopeMemory>> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a scope that can be asked from now on.
    pub(crate) fn add(&self, scope: ScopeMemory) {
        self.scopes().push(scope);
    }

    /// What is known of an instance; None if this replica knows no such registration.
    pub(crate) fn explain(&self, key: &Key, instance: &str) -> Option<Explanation> {
        let scopes = self.scopes();
        let covers = |scope: &&ScopeMemory| {
            scope.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
        };
        let scope = scopes.iter().find(covers)?;
        let object = ObjectRef::new(&key.name).within(&key.namespace);
        let object = scope.registrations.get(&object)?;
        Some(self.of(scope, &object, instance))
    }

    fn of(&self, scope: &ScopeMemory, object: &ServiceRegistration, instance: &str) -> Explanation {
        let registration = snapshot::registration(object, &scope.cluster.lock());
        let Registration { key, uid, .. } = &registration;
        let known = scope.states.read(key, uid, |state| (state.ttl.clone(), state.due));
        let (ttl, due) = known.unwrap_or_default();
        let ttl = ttl.unwrap_or_else(|| TtlHistory::new(registration.ttl));
        let path = Path::known(&registration, &scope.liveness.path(), &scope.liveness.guard());
        let (record, carried) = known_of(scope, &registration, &ttl, instance, self.clock.now());
        let term = self.leadership.term();
        let publishing = scope.queue.publishing_since().filter(|_| term.is_some());
        // What was decided in an earlier term says nothing about now.
        let report = publishing.and_then(|_| scope.reports.last(key, uid));
        let now = self.clock.now();
        let replica = ExplainReplica {
            name: self.identity.clone(),
            leads: term.is_some(),
            term: term.map(|term| term.0),
            term_began: publishing.map(|began| explain::seconds(now.since(began))),
        };
        explain::explain(
            replica,
            instance,
            &Known {
                registration: &registration,
                ttl: &ttl,
                record: record.as_ref().map(|(record, interval)| (record, *interval)),
                carried,
                path: &path,
                report: report.as_ref().map(|report| (&report.account, report.at)),
                next_look: due.filter(|_| publishing.is_some()),
                now,
            },
        )
    }
}

/// The record of an instance with the time between its last two beats, and what gateways say of it: both of one moment.
fn known_of(
    scope: &ScopeMemory,
    registration: &Registration,
    ttl: &TtlHistory,
    instance: &str,
    now: MonotonicTime,
) -> (Option<(Record, Option<Duration>)>, Option<Carried>) {
    let (key, interval) = (&registration.key, registration.interval);
    let lease = heartbeat::lease_name(&key.name, instance);
    let record = |index: &Index| {
        Some((index.record(key, &lease)?.clone(), index.last_interval(key, &lease)))
    };
    let with_gateways = scope.liveness.carried(|state, index| {
        let record = record(index);
        let carried = record.as_ref().map(|(record, _)| {
            let pace = Pace { ttl: ttl.at(record, interval), interval };
            let name = |carrier| state.name_of(state.set.pod_of(carrier));
            let finding = state.finding(record, pace, now);
            Carried { gateway: record.carrier.map(name), finding }
        });
        (record, carried)
    });
    with_gateways.unwrap_or_else(|| (record(&scope.liveness.index()), None))
}

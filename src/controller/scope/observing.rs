//! The parts of a scope that observe, on every replica.

use std::sync::Arc;

use beatkeeper_api::ServiceRegistration;
use kube::runtime::reflector::Store;

use super::owners::Scope;
use crate::controller::{
    explain::scopes::ScopeMemory,
    gc::missing_leases::MissingLeases,
    probe::{others::Probes, renewal::Renewer},
    reconcile::verify::Verifier,
    report::access::AccessReporter,
    watch::{
        begin::WatchStarter, check::WatchCheck, objects::ObjectWatches,
        registrations::RegistrationWatch,
    },
};

impl Scope {
    pub(super) fn registration_watch(&self) -> RegistrationWatch {
        RegistrationWatch { watches: self.watch_starter(), registrations: self.registrations() }
    }

    fn watch_starter(&self) -> WatchStarter {
        WatchStarter {
            namespace: self.namespace.clone(),
            client: self.api.client.clone(),
            tasks: self.tasks.clone(),
            telemetry: self.telemetry.clone(),
            read_access: self.read_access.clone(),
            relists: self.relists.clone(),
        }
    }

    pub(super) fn object_watches(&self, probes: Arc<Probes>) -> ObjectWatches {
        ObjectWatches {
            watches: self.watch_starter(),
            rollback: self.rollback(),
            cluster: self.cluster.clone(),
            liveness: self.liveness.clone(),
            probes,
            gates: self.gates.clone(),
            queue: self.queue.clone(),
        }
    }

    pub(super) fn watch_check(&self) -> WatchCheck {
        WatchCheck {
            observer: self.observer.clone(),
            namespace: self.namespace.clone(),
            api: self.api.clone(),
            telemetry: self.telemetry.clone(),
            cluster: self.cluster.clone(),
            liveness: self.liveness.clone(),
            read_access: self.read_access.clone(),
            relists: self.relists.clone(),
            rollback: self.rollback(),
        }
    }

    pub(super) fn probes(&self) -> Probes {
        Probes {
            clock: self.telemetry.clock,
            liveness: self.liveness.clone(),
            proofs: self.proofs.clone(),
            others: self.other_probes.clone(),
        }
    }

    pub(super) fn renewer(&self) -> Renewer {
        Renewer {
            client: self.api.client.clone(),
            clock: self.telemetry.clock,
            liveness: self.liveness.clone(),
            proofs: self.proofs.clone(),
            rollback: self.rollback(),
        }
    }

    pub(super) fn access_reporter(
        &self,
        registrations: Store<ServiceRegistration>,
    ) -> AccessReporter {
        AccessReporter {
            namespace: self.namespace.clone(),
            api: self.api.clone(),
            telemetry: self.telemetry.clone(),
            cluster: self.cluster.clone(),
            liveness: self.liveness.clone(),
            queue: self.queue.clone(),
            reports: self.reports.clone(),
            read_access: self.read_access.clone(),
            registrations,
            warm: self.warm.clone(),
        }
    }

    pub(super) fn memory(&self, registrations: Store<ServiceRegistration>) -> ScopeMemory {
        ScopeMemory {
            namespace: self.namespace.clone(),
            registrations,
            cluster: self.cluster.clone(),
            liveness: self.liveness.clone(),
            states: self.states.clone(),
            queue: self.queue.clone(),
            reports: self.reports.clone(),
        }
    }

    pub(super) fn missing_leases(&self, verifier: Arc<Verifier>) -> MissingLeases {
        MissingLeases {
            interval: self.settings.sweep_interval,
            clock: self.telemetry.clock,
            cluster: self.cluster.clone(),
            liveness: self.liveness.clone(),
            queue: self.queue.clone(),
            verifier,
        }
    }

    pub(super) fn verifier(&self) -> Verifier {
        Verifier {
            api: self.api.clone(),
            clock: self.telemetry.clock,
            liveness: self.liveness.clone(),
            proofs: self.proofs.clone(),
            gateways: self.gateway_proofs(),
            queue: self.queue.clone(),
        }
    }
}

//! The parts of a scope that publish, while this replica leads.

use std::sync::Arc;

use beatkeeper_api::ServiceRegistration;
use kube::runtime::reflector::Store;

use super::owners::Scope;
use crate::controller::{
    gc::{abandoned::AbandonedObjects, leases::LeaseGc},
    probe::others::Probes,
    reconcile::{
        adoption::Adopter,
        apply::Applier,
        cordons::CordonWriter,
        decide::Decider,
        ensure_service::ServiceEnsurer,
        inputs::{InputGatherer, Snapshots},
        pipeline::Reconciler,
        plan::Planner,
        refused_addresses::RefusedAddresses,
        report::ReportStep,
        takeovers::Takeovers,
        verify::Verifier,
        warm_up::WarmUp,
    },
    report::{
        access::AccessReporter, readiness::Readiness, status::Reporter, status_writer::StatusWriter,
    },
    term::Leader,
};

impl Scope {
    /// What this replica does in the terms in which it leads. `scope` is the name of the scope, for the log.
    pub(super) fn leader(
        &self,
        scope: &str,
        registrations: Store<ServiceRegistration>,
        access: Arc<AccessReporter>,
        probes: Arc<Probes>,
        verifier: Arc<Verifier>,
    ) -> Leader {
        let decider = Arc::new(self.decider());
        Leader {
            scope: scope.to_owned(),
            observer: self.observer.clone(),
            clock: self.telemetry.clock,
            process: self.tasks.process.clone(),
            metrics: self.telemetry.metrics.clone(),
            leadership: self.api.leadership.clone(),
            states: self.states.clone(),
            reports: self.reports.clone(),
            gates: self.gates.clone(),
            queue: self.queue.clone(),
            proofs: self.proofs.clone(),
            carriers: self.carrier_terms(),
            access,
            registrations,
            warm_up: self.warm_up(decider.clone()),
            reconciler: Arc::new(self.reconciler(decider, verifier)),
            leases: self.lease_gc(probes),
            abandoned: self.abandoned_objects(),
            readiness: self.readiness(),
            concurrency: self.settings.concurrency,
        }
    }

    fn reconciler(&self, decider: Arc<Decider>, verifier: Arc<Verifier>) -> Reconciler {
        Reconciler {
            dry_run: self.settings.dry_run,
            api: self.api.clone(),
            telemetry: self.telemetry.clone(),
            process: self.tasks.process.clone(),
            cluster: self.cluster.clone(),
            liveness: self.liveness.clone(),
            states: self.states.clone(),
            registrations: self.registrations(),
            read_access: self.read_access.clone(),
            inputs: self.input_gatherer(decider.clone()),
            decider,
            verifier,
            planner: self.planner(),
            applier: self.applier(),
            cordons: self.cordon_writer(),
            report: self.report_step(),
        }
    }

    fn snapshots(&self) -> Snapshots {
        Snapshots {
            clock: self.telemetry.clock,
            cluster: self.cluster.clone(),
            liveness: self.liveness.clone(),
            states: self.states.clone(),
        }
    }

    fn input_gatherer(&self, decider: Arc<Decider>) -> InputGatherer {
        InputGatherer {
            snapshots: self.snapshots(),
            services: ServiceEnsurer {
                api: self.api.clone(),
                cluster: self.cluster.clone(),
                states: self.states.clone(),
                rollback: self.rollback(),
            },
            adopter: self.adopter(),
            decider,
            metrics: self.telemetry.metrics.clone(),
        }
    }

    fn takeovers(&self) -> Takeovers {
        Takeovers {
            api: self.api.clone(),
            clock: self.telemetry.clock,
            cluster: self.cluster.clone(),
            states: self.states.clone(),
        }
    }

    fn adopter(&self) -> Adopter {
        Adopter {
            takeovers: self.takeovers(),
            clock: self.telemetry.clock,
            cluster: self.cluster.clone(),
            states: self.states.clone(),
            ranges: self.settings.outside_ranges.clone(),
        }
    }

    fn decider(&self) -> Decider {
        Decider {
            observer: self.observer.clone(),
            clock: self.telemetry.clock,
            liveness: self.liveness.clone(),
            cluster: self.cluster.clone(),
            states: self.states.clone(),
            proofs: self.proofs.clone(),
            queue: self.queue.clone(),
            metrics: self.telemetry.metrics.clone(),
            ranges: self.settings.outside_ranges.clone(),
        }
    }

    fn warm_up(&self, decider: Arc<Decider>) -> WarmUp {
        WarmUp {
            cluster: self.cluster.clone(),
            liveness: self.liveness.clone(),
            states: self.states.clone(),
            snapshots: self.snapshots(),
            decider,
        }
    }

    fn planner(&self) -> Planner {
        Planner {
            observer: self.observer.clone(),
            clock: self.telemetry.clock,
            states: self.states.clone(),
            metrics: self.telemetry.metrics.clone(),
            style: self.settings.style(),
        }
    }

    fn refused_addresses(&self) -> RefusedAddresses {
        RefusedAddresses {
            api: self.api.clone(),
            clock: self.telemetry.clock,
            states: self.states.clone(),
        }
    }

    fn applier(&self) -> Applier {
        Applier {
            api: self.api.clone(),
            clock: self.telemetry.clock,
            cluster: self.cluster.clone(),
            states: self.states.clone(),
            metrics: self.telemetry.metrics.clone(),
            rollback: self.rollback(),
            refused: self.refused_addresses(),
            takeovers: self.takeovers(),
            style: self.settings.style(),
        }
    }

    fn cordon_writer(&self) -> CordonWriter {
        CordonWriter {
            api: self.api.clone(),
            clock: self.telemetry.clock,
            liveness: self.liveness.clone(),
            states: self.states.clone(),
        }
    }

    fn report_step(&self) -> ReportStep {
        ReportStep {
            clock: self.telemetry.clock,
            liveness: self.liveness.clone(),
            cluster: self.cluster.clone(),
            states: self.states.clone(),
            proofs: self.proofs.clone(),
            metrics: self.telemetry.metrics.clone(),
            snapshots: self.snapshots(),
            adopter: self.adopter(),
            refused: self.refused_addresses(),
            readiness: self.readiness(),
            status_writer: Arc::new(self.status_writer()),
        }
    }

    fn status_writer(&self) -> StatusWriter {
        StatusWriter {
            reporter: Reporter {
                api: self.api.clone(),
                clock: self.telemetry.clock,
                states: self.states.clone(),
                reports: self.reports.clone(),
                events: self.events.clone(),
            },
            telemetry: self.telemetry.clone(),
            tasks: self.tasks.clone(),
            queue: self.queue.clone(),
            states: self.states.clone(),
            reports: self.reports.clone(),
            registrations: self.registrations(),
        }
    }

    fn readiness(&self) -> Readiness {
        Readiness {
            dry_run: self.settings.dry_run,
            api: self.api.clone(),
            clock: self.telemetry.clock,
            process: self.tasks.process.clone(),
            cluster: self.cluster.clone(),
            liveness: self.liveness.clone(),
            gates: self.gates.clone(),
            events: self.events.clone(),
        }
    }

    fn lease_gc(&self, probes: Arc<Probes>) -> LeaseGc {
        LeaseGc {
            interval: self.settings.sweep_interval,
            dry_run: self.settings.dry_run,
            api: self.api.clone(),
            clock: self.telemetry.clock,
            cluster: self.cluster.clone(),
            liveness: self.liveness.clone(),
            probes,
            read_access: self.read_access.clone(),
            metrics: self.telemetry.metrics.clone(),
        }
    }

    fn abandoned_objects(&self) -> AbandonedObjects {
        AbandonedObjects {
            namespace: self.namespace.clone(),
            dry_run: self.settings.dry_run,
            api: self.api.clone(),
            clock: self.telemetry.clock,
            cluster: self.cluster.clone(),
        }
    }
}

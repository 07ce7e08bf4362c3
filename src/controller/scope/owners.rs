//! The owners of the state of one scope.

use std::sync::{Arc, Mutex};

use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::controller::{
    api::ApiServer,
    carriers::{
        port::Network,
        state::{CarrierState, Outbox},
    },
    cluster::Cluster,
    explain::scopes::Scopes,
    host::{self, Process},
    leader::leadership::Leadership,
    liveness::Liveness,
    observer::Observer,
    probe::{others::OtherProbes, proofs::Proofs},
    queue::WorkQueue,
    registrations::Registrations,
    report::{event_recorder::EventRecorder, gates::ReadinessGates, pending::PendingReports},
    rollback::Rollback,
    settings::Settings,
    states::States,
    tasks::Tasks,
    telemetry::Telemetry,
    watch::{access::ReadAccess, relist::Relists},
};

/// What all scopes of one process share.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    /// The identity of this process, which no other process has.
    pub(crate) identity: String,
    pub(crate) process: Process,
    /// Sees what this process decides.
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) telemetry: Telemetry,
    pub(crate) leadership: Leadership,
    /// Which scopes can be asked about their registrations.
    pub(crate) scopes: Arc<Scopes>,
    /// The network of gateways; None if there are none.
    pub(crate) gateways: Option<Arc<dyn Network>>,
    /// Cancelled once a scope has listed all kinds, or has no right to and must report this.
    pub(crate) warm: CancellationToken,
}

/// The owners of the state of one scope. Each has one job.
pub(super) struct Scope {
    pub(super) namespace: Option<String>,
    pub(super) settings: Settings,
    pub(super) api: ApiServer,
    pub(super) tasks: Tasks,
    pub(super) telemetry: Telemetry,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) liveness: Arc<Liveness>,
    pub(super) states: Arc<States>,
    pub(super) queue: Arc<WorkQueue>,
    pub(super) proofs: Arc<Proofs>,
    pub(super) other_probes: Arc<OtherProbes>,
    pub(super) gates: Arc<ReadinessGates>,
    pub(super) reports: Arc<PendingReports>,
    pub(super) events: Arc<EventRecorder>,
    pub(super) read_access: Arc<ReadAccess>,
    pub(super) relists: Arc<Relists>,
    pub(super) scopes: Arc<Scopes>,
    pub(super) identity: String,
    pub(super) gateways: Option<GatewayOwner>,
    pub(super) warm: CancellationToken,
}

/// What the task of the streams to gateways takes over.
pub(super) struct GatewayOwner {
    pub(super) network: Arc<dyn Network>,
    /// None once the task has it.
    pub(super) outbox: Mutex<Option<Outbox>>,
}

impl Scope {
    pub(super) fn new(shared: &Shared, namespace: Option<String>, stop: CancellationToken) -> Self {
        let Shared { client, settings, process, observer, telemetry, .. } = shared;
        let (clock, metrics) = (telemetry.clock, telemetry.metrics.clone());
        let parallel = settings.max_parallel_api_calls;
        let leadership = shared.leadership.clone();
        let api = ApiServer::new(client.clone(), leadership, parallel, stop.clone());
        let cluster = Arc::<Cluster>::default();
        let (carriers, gateways) = match &shared.gateways {
            Some(network) => {
                let (carriers, outbox) = CarrierState::new(clock.now());
                let (network, outbox) = (network.clone(), Mutex::new(Some(outbox)));
                (Some(carriers), Some(GatewayOwner { network, outbox }))
            }
            None => (None, None),
        };
        let liveness = Arc::new(Liveness::new(clock, carriers));
        metrics.count_leases_of(liveness.shared_index());
        observer.keeps(&liveness.shared_index());
        let states = Arc::new(States::new(clock));
        let queue = Arc::new(WorkQueue::new(clock));
        let own_namespace = namespace.clone().unwrap_or_else(|| host::own_namespace(client));
        let proofs = Arc::new(Proofs::new(
            &own_namespace,
            &shared.identity,
            clock,
            liveness.clone(),
            queue.clone(),
            metrics.clone(),
        ));
        let other_probes = Arc::<OtherProbes>::default();
        let gates = Arc::new(ReadinessGates::new(clock));
        let reports = Arc::new(PendingReports::new(settings.explains()));
        let relists = Arc::<Relists>::default();
        Self {
            namespace,
            settings: settings.clone(),
            api,
            tasks: Tasks::new(process.clone(), stop),
            telemetry: telemetry.clone(),
            observer: observer.clone(),
            cluster,
            liveness,
            states,
            queue,
            proofs,
            other_probes,
            gates,
            reports,
            events: Arc::new(EventRecorder::new(client.clone())),
            read_access: Arc::default(),
            relists,
            scopes: shared.scopes.clone(),
            identity: shared.identity.clone(),
            gateways,
            warm: shared.warm.clone(),
        }
    }

    /// What happens when a registration changes or goes.
    pub(super) fn registrations(&self) -> Arc<Registrations> {
        Arc::new(Registrations {
            cluster: self.cluster.clone(),
            liveness: self.liveness.clone(),
            states: self.states.clone(),
            proofs: self.proofs.clone(),
            reports: self.reports.clone(),
            gates: self.gates.clone(),
            queue: self.queue.clone(),
            metrics: self.telemetry.metrics.clone(),
        })
    }

    /// What happens when the store is rolled back.
    pub(super) fn rollback(&self) -> Arc<Rollback> {
        Arc::new(Rollback {
            observer: self.observer.clone(),
            clock: self.telemetry.clock,
            metrics: self.telemetry.metrics.clone(),
            liveness: self.liveness.clone(),
            cluster: self.cluster.clone(),
            other_probes: self.other_probes.clone(),
            states: self.states.clone(),
            reports: self.reports.clone(),
            proofs: self.proofs.clone(),
            relists: self.relists.clone(),
        })
    }
}

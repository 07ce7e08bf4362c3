//! Beatkeeper: a heartbeat Lease for each instance on a real control plane, the operator, and a watcher that reads
//! only EndpointSlices.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use beatkeeper_api::heartbeat;
use beatkeeper_test_support::{Select, SliceObserver};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::control_plane::{Cluster, NAMESPACE, address_of, instance_at, name_of};
use crate::clock;
use crate::messages::{Event, Events, Instance};
use crate::system::{Part, Registry, Running, Setup};

/// The maximum number of requests of all instances that are under way at once. Each needs a connection of its own.
/// Without a limit, an API server that falls behind would get more and more new connections, and spend its time on
/// these. An instance that waits for its turn has not sent its renewal yet. If an instance is pruned before a ttl
/// has passed since it sent its renewal, it is pruned early.
const UNDER_WAY: usize = 256;

/// Starts a control plane, and one operator.
pub async fn start(setup: &Setup) -> Result<Running> {
    let cluster = Cluster::start(setup).await?;
    let operator = cluster.operator("operator", &cluster.plane.kubeconfig(), &[])?;
    cluster.until_it_publishes(&operator).await?;
    // The API server's page is not read: that would cost it more than the beats meanwhile.
    let api_server = Part { metrics: None, ..cluster.api_server().await? };
    let parts = vec![operator.part()?, cluster.etcd().await?, api_server];
    Ok(Running {
        address: cluster.plane.kubeconfig().display().to_string(),
        parts,
        version: cluster.version(),
        // The order of the drops: the operator first.
        keep: Box::new((operator, cluster)),
    })
}

async fn connect(kubeconfig: &str) -> Result<Client> {
    let (kubeconfig, options) = (Kubeconfig::read_from(kubeconfig)?, KubeConfigOptions::default());
    beatkeeper_cluster::connect(&Config::from_custom_kubeconfig(kubeconfig, &options).await?)
}

/// Follows the slices of all Services.
pub async fn watch(kubeconfig: &str, events: Events) -> Result<()> {
    let slices = Api::namespaced(connect(kubeconfig).await?, NAMESPACE);
    // Slices of the mirroring controller would report the same endpoints twice.
    let ours = "endpointslice.kubernetes.io/managed-by=beatkeeper.dev";
    let which = ListParams::default().labels(ours);
    let observer = SliceObserver::start(slices, which, Select::Ready).await?;
    let mut changed = observer.receiver();
    events.send(Event::Ready);
    let mut told = 0;
    loop {
        observer.look(|history| {
            for change in &history.changes()[told..] {
                if let Some(instance) = instance_at(&change.address) {
                    let at = clock::moment_of(change.at);
                    events.send(Event::Seen { instance, there: change.published, at });
                }
            }
            told = history.changes().len();
        });
        changed.changed().await.context("the observer has ended")?;
    }
}

/// Instances that beat as `docs/heartbeat.md` requires.
pub struct Leases {
    leases: Api<Lease>,
    ttl: Duration,
    services: u32,
    turns: Semaphore,
}

impl Leases {
    async fn beat(&self, lease: &str) -> kube::Result<Lease> {
        let patch = Patch::Merge(heartbeat::beat_patch(Timestamp::now()));
        self.leases.patch(lease, &PatchParams::default(), &patch).await
    }

    async fn create(&self, lease: &str, registration: &str, instance: Instance) -> Result<()> {
        let address: IpAddr = address_of(instance);
        let lease: Lease = serde_json::from_value(json!({
            "metadata": {
                "name": lease,
                "labels": { heartbeat::REGISTRATION_LABEL: registration },
                "annotations": { heartbeat::ADDRESSES_ANNOTATION: address.to_string() },
            },
            "spec": {
                "holderIdentity": format!("vm-{instance}"),
                "leaseDurationSeconds": self.ttl.as_secs(),
                "renewTime": heartbeat::renew_time(Timestamp::now()),
            },
        }))?;
        self.leases.create(&PostParams::default(), &lease).await?;
        Ok(())
    }
}

impl Registry for Leases {
    /// The name of the Lease.
    type Membership = String;

    async fn connect(setup: &Setup, kubeconfig: &str) -> Result<Self> {
        let leases = Api::namespaced(connect(kubeconfig).await?, NAMESPACE);
        let turns = Semaphore::new(UNDER_WAY);
        Ok(Self { leases, ttl: setup.ttl, services: setup.services, turns })
    }

    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    async fn join(&self, instance: Instance) -> Result<String> {
        let registration = name_of(instance % self.services);
        let lease = heartbeat::lease_name(&registration, &format!("vm-{instance}"));
        // An instance that returns finds its Lease.
        match self.beat(&lease).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.create(&lease, &registration, instance).await?;
            }
            answer => drop(answer?),
        }
        Ok(lease)
    }

    async fn renew(&self, lease: &mut String) -> Result<()> {
        self.beat(lease).await?;
        Ok(())
    }

    async fn leave(&self, lease: String) -> Result<()> {
        self.leases.delete(&lease, &DeleteParams::default()).await?;
        Ok(())
    }
}

//! Beatkeeper: a heartbeat Lease for each instance on a real control plane, the operator, and a watcher that reads
//! only EndpointSlices.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use beatkeeper_api::heartbeat;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Part, Registry, Running, Setup};
use crate::clock::Moment;
use crate::words::{Event, Instance, Tell};

mod stage;

pub use stage::{Operator, Stage, beatkeeper};

/// The namespace of all objects.
pub const NAMESPACE: &str = "bench";
/// A range reserved for benchmarks (RFC 2544), with 131,072 addresses.
const RANGE: &str = "198.18.0.0/15";
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// The maximum number of requests of all instances that are under way at once. Each needs a connection of its own.
/// Without a limit, an API server that falls behind would get more and more new connections, and spend its time on
/// these. An instance that waits for its turn has not sent its renewal yet. If an instance is pruned before a ttl
/// has passed since it sent its renewal, it is pruned early.
const UNDER_WAY: usize = 256;

/// Starts a control plane, and one operator.
pub async fn start(setup: &Setup) -> Result<Running> {
    let stage = Stage::open(setup).await?;
    let operator = stage.operator("operator", &stage.kubeconfig(), &[])?;
    stage.until_it_publishes(&operator).await?;
    let pid = |pid: Option<u32>| pid.context("a part of the control plane does not run");
    let etcd = Part::new("etcd", pid(stage.plane.etcd().pid().await?)?);
    let operators = Part::new("operator", operator.server.pid());
    let parts = vec![
        Part { metrics: Some(operator.metrics.clone()), ..operators },
        Part { metrics: Some(stage.store()), ..etcd },
        Part::new("kube-apiserver", pid(stage.plane.api_server().pid().await?)?),
    ];
    Ok(Running {
        address: stage.kubeconfig().display().to_string(),
        parts,
        version: stage.version(),
        // The order of the drops: the operator first.
        keep: Box::new((operator, stage)),
    })
}

async fn connect(kubeconfig: &str) -> Result<Client> {
    let config = kube::Config::from_custom_kubeconfig(
        Kubeconfig::read_from(kubeconfig)?,
        &KubeConfigOptions::default(),
    )
    .await?;
    beatkeeper_cluster::connect(&config)
}

/// Follows the slices of all Services.
pub async fn watch(kubeconfig: &str, tell: Tell) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::namespaced(connect(kubeconfig).await?, NAMESPACE);
    // Slices of the mirroring controller would report the same endpoints twice.
    let ours = "endpointslice.kubernetes.io/managed-by=beatkeeper.dev";
    let params = WatchParams::default().labels(ours);
    let mut view = View::default();
    let mut version = "0".to_owned();
    tell.tell(Event::Ready);
    // An API server ends each watch after some minutes, and ends all watches if it is suspended for long.
    loop {
        let mut events = std::pin::pin!(match slices.watch(&params, &version).await {
            Ok(events) => events,
            Err(error) => {
                eprintln!("watching again: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        });
        while let Some(event) = events.next().await {
            let at = Moment::now();
            let (slice, deleted) = match event {
                Ok(WatchEvent::Added(slice) | WatchEvent::Modified(slice)) => (slice, false),
                Ok(WatchEvent::Deleted(slice)) => (slice, true),
                Ok(WatchEvent::Bookmark(mark)) => {
                    version = mark.metadata.resource_version;
                    continue;
                }
                Ok(WatchEvent::Error(error)) => bail!("the watch broke: {error:?}"),
                Err(error) => {
                    eprintln!("watching again: {error}");
                    break;
                }
            };
            version = slice.metadata.resource_version.clone().unwrap_or_default();
            view.take_in(slice, deleted, |event| tell.tell(event(at)));
        }
    }
}

/// The ready instances of each slice. An instance may be in two slices for a moment, while it moves.
#[derive(Default)]
struct View {
    slices: BTreeMap<String, HashSet<Instance>>,
    held_by: HashMap<Instance, usize>,
}

impl View {
    fn take_in(
        &mut self,
        slice: EndpointSlice,
        deleted: bool,
        mut tell: impl FnMut(&dyn Fn(Moment) -> Event),
    ) {
        let name = slice.metadata.name.unwrap_or_default();
        let ready = slice.endpoints.iter().filter(|endpoint| {
            !deleted && endpoint.conditions.as_ref().is_some_and(|all| all.ready == Some(true))
        });
        let now: HashSet<Instance> = ready
            .flat_map(|endpoint| &endpoint.addresses)
            .filter_map(|ip| instance_at(ip))
            .collect();
        let before = self.slices.insert(name, now.clone()).unwrap_or_default();
        for &instance in now.difference(&before) {
            let holds = self.held_by.entry(instance).or_default();
            *holds += 1;
            if *holds == 1 {
                tell(&|at| Event::There { instance, at });
            }
        }
        for &instance in before.difference(&now) {
            let holds = self.held_by.entry(instance).or_default();
            *holds = holds.saturating_sub(1);
            if *holds == 0 {
                tell(&|at| Event::Gone { instance, at });
            }
        }
    }
}

/// Returns the address of an instance.
pub fn address_of(instance: Instance) -> IpAddr {
    Ipv4Addr::from_bits(FIRST.to_bits() + 1 + instance).into()
}

fn instance_at(address: &str) -> Option<Instance> {
    address.parse::<Ipv4Addr>().ok()?.to_bits().checked_sub(FIRST.to_bits() + 1)
}

/// Instances that beat as `docs/heartbeat.md` requires.
pub struct Leases {
    leases: Api<Lease>,
    ttl: Duration,
    services: u32,
    turns: Semaphore,
}

impl Leases {
    /// Connects.
    pub async fn connect(kubeconfig: &str, ttl: Duration, services: u32) -> Result<Self> {
        let leases = Api::namespaced(connect(kubeconfig).await?, NAMESPACE);
        Ok(Self { leases, ttl, services, turns: Semaphore::new(UNDER_WAY) })
    }

    /// Returns the name of the registration of an instance.
    fn registration_of(&self, instance: Instance) -> String {
        name_of(instance % self.services)
    }

    async fn beat(&self, lease: &str) -> kube::Result<Lease> {
        let patch = Patch::Merge(heartbeat::beat_patch(Timestamp::now()));
        self.leases.patch(lease, &PatchParams::default(), &patch).await
    }

    async fn create(&self, lease: &str, instance: Instance) -> Result<()> {
        let lease: Lease = serde_json::from_value(json!({
            "metadata": {
                "name": lease,
                "labels": { heartbeat::REGISTRATION_LABEL: self.registration_of(instance) },
                "annotations": { heartbeat::ADDRESSES_ANNOTATION: address_of(instance).to_string() },
            },
            "spec": {
                "holderIdentity": instance_name(instance),
                "leaseDurationSeconds": self.ttl.as_secs(),
                "renewTime": heartbeat::renew_time(Timestamp::now()),
            },
        }))?;
        self.leases.create(&PostParams::default(), &lease).await?;
        Ok(())
    }
}

/// Returns the name of a registration and its Service.
pub fn name_of(service: u32) -> String {
    format!("bench-{service}")
}

fn instance_name(instance: Instance) -> String {
    format!("vm-{instance}")
}

impl Registry for Leases {
    /// The name of the Lease.
    type Membership = String;

    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    async fn join(&self, instance: Instance) -> Result<String> {
        let lease =
            heartbeat::lease_name(&self.registration_of(instance), &instance_name(instance));
        // An instance that returns finds its Lease.
        match self.beat(&lease).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.create(&lease, instance).await?;
            }
            Err(error) => return Err(error.into()),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, instances: &[Instance], ready: bool) -> EndpointSlice {
        let endpoints: Vec<_> = instances
            .iter()
            .map(|&instance| {
                json!({ "addresses": [address_of(instance)], "conditions": { "ready": ready } })
            })
            .collect();
        serde_json::from_value(json!({
            "addressType": "IPv4", "metadata": { "name": name }, "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn seen(view: &mut View, slice: EndpointSlice, deleted: bool) -> Vec<Event> {
        let mut events = Vec::new();
        view.take_in(slice, deleted, |event| events.push(event(Moment(5))));
        events
    }

    #[test]
    fn an_address_leads_back_to_its_instance() {
        assert_eq!(address_of(0).to_string(), "198.18.0.1");
        for instance in [0, 254, 255, 9_999, 130_000] {
            assert_eq!(instance_at(&address_of(instance).to_string()), Some(instance));
        }
        assert_eq!(instance_at("192.0.2.1"), None);
    }

    #[test]
    fn one_that_moves_to_another_slice_is_there_all_the_time() {
        let mut view = View::default();
        let there = Event::There { instance: 1, at: Moment(5) };
        assert_eq!(seen(&mut view, slice("a", &[1], true), false), [there]);
        assert_eq!(seen(&mut view, slice("b", &[1], true), false), []);
        assert_eq!(seen(&mut view, slice("a", &[1], true), true), []);
        let gone = Event::Gone { instance: 1, at: Moment(5) };
        assert_eq!(seen(&mut view, slice("b", &[], true), false), [gone]);
    }

    #[test]
    fn one_that_is_not_ready_is_not_there() {
        let mut view = View::default();
        assert_eq!(seen(&mut view, slice("a", &[1], false), false), []);
        assert_eq!(seen(&mut view, slice("a", &[1], true), false).len(), 1);
        let gone = Event::Gone { instance: 1, at: Moment(5) };
        assert_eq!(seen(&mut view, slice("a", &[1], false), false), [gone]);
    }
}

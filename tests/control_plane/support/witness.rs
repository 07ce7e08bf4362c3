//! An independent watch on what a Service publishes. It records every state.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{Arc, Mutex},
};

use futures::StreamExt;
use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use tokio::task::JoinHandle;

use super::{Published, Shop, eventually};

const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";

/// Watches the slices of a Service by their label, as every consumer does, and the Endpoints of the
/// Service.
pub struct Witness {
    record: Arc<Mutex<Record>>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Default)]
struct Record {
    slices: BTreeMap<String, EndpointSlice>,
    /// The addresses in the union of all slices, one set for each state. `in_endpoints` has those
    /// that Endpoints listed as ready.
    in_slices: Vec<BTreeSet<String>>,
    in_endpoints: Vec<BTreeSet<String>>,
    managers: BTreeSet<String>,
}

impl Record {
    fn look_at_slices(&mut self) {
        let endpoints = self.slices.values().flat_map(|slice| &slice.endpoints);
        let addresses = endpoints.flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect();
        self.in_slices.push(addresses);
    }

    fn keep(&mut self, slice: EndpointSlice) {
        let labels = slice.metadata.labels.clone().unwrap_or_default();
        self.managers.extend(labels.get("endpointslice.kubernetes.io/managed-by").cloned());
        self.slices.insert(slice.metadata.name.clone().unwrap(), slice);
    }
}

impl Witness {
    /// Starts to watch. Returns when it has seen the current state.
    pub async fn of(shop: &Shop, service: &str) -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let label =
            watcher::Config::default().labels(&format!("kubernetes.io/service-name={service}"));
        let name = watcher::Config::default().fields(&format!("metadata.name={service}"));
        let slices = watch_slices(shop.api(), label, record.clone());
        let endpoints = watch_endpoints(shop.api(), name, record.clone());
        let witness = Self { record, tasks: [tokio::spawn(slices), tokio::spawn(endpoints)] };
        eventually("the witness has seen what is there", async || {
            let record = witness.record.lock().unwrap();
            (!record.in_slices.is_empty() && !record.in_endpoints.is_empty()).then_some(())
        })
        .await;
        witness
    }

    /// Waits until the last state of the slices and of Endpoints is exactly this set.
    pub async fn sees(&self, addresses: &BTreeSet<String>) {
        eventually("the witness has seen the end", async || {
            let record = self.record.lock().unwrap();
            let last = [record.in_slices.last(), record.in_endpoints.last()];
            last.iter().all(|seen| *seen == Some(addresses)).then_some(())
        })
        .await;
    }

    /// Waits until the last state of the Endpoints is exactly this set.
    pub async fn sees_in_endpoints(&self, addresses: &BTreeSet<String>) {
        eventually("the witness has seen the Endpoints' end", async || {
            let record = self.record.lock().unwrap();
            (record.in_endpoints.last() == Some(addresses)).then_some(())
        })
        .await;
    }

    /// Panics if any of these addresses was missing from the slices or from the Endpoints at any
    /// moment. Also panics if mirrored slices of the cluster existed beside the operator's slices.
    pub fn never_missed(&self, addresses: &BTreeSet<String>) {
        self.always_saw(addresses);
        assert!(!self.managers().contains(MIRROR), "mirrored slices stood beside ours");
    }

    /// Panics if any of these addresses was missing from the slices or from the Endpoints at any
    /// moment.
    pub fn always_saw(&self, addresses: &BTreeSet<String>) {
        let record = self.record.lock().unwrap();
        for (kind, states) in [("slices", &record.in_slices), ("Endpoints", &record.in_endpoints)] {
            for (n, state) in states.iter().enumerate() {
                let missing: Vec<_> = addresses.difference(state).collect();
                assert!(
                    missing.is_empty(),
                    "state {n} of {} of the {kind} lacks {missing:?}",
                    states.len()
                );
            }
        }
    }

    /// Panics if any of these addresses was missing from the slices at any moment.
    pub fn always_in_slices(&self, addresses: &BTreeSet<String>) {
        let record = self.record.lock().unwrap();
        assert!(record.in_slices.iter().all(|state| state.is_superset(addresses)));
    }

    /// Whether an address was published at any moment.
    pub fn ever_saw(&self, address: &str) -> bool {
        let record = self.record.lock().unwrap();
        let mut states = record.in_slices.iter().chain(&record.in_endpoints);
        states.any(|state| state.contains(address))
    }

    /// The managers of all slices that this Service has had.
    pub fn managers(&self) -> BTreeSet<String> {
        self.record.lock().unwrap().managers.clone()
    }

    /// The number of states of the slices and of the Endpoints.
    pub fn states(&self) -> (usize, usize) {
        let record = self.record.lock().unwrap();
        (record.in_slices.len(), record.in_endpoints.len())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn watch_slices(api: Api<EndpointSlice>, which: watcher::Config, record: Arc<Mutex<Record>>) {
    let mut events = pin!(watcher(api, which));
    while let Some(event) = events.next().await {
        let mut record = record.lock().unwrap();
        match event.unwrap() {
            Event::Init => {
                record.slices.clear();
                continue;
            }
            Event::InitApply(slice) => {
                record.keep(slice);
                continue;
            }
            Event::InitDone => {}
            Event::Apply(slice) => record.keep(slice),
            Event::Delete(slice) => {
                record.slices.remove(&slice.metadata.name.unwrap());
            }
        }
        record.look_at_slices();
    }
}

async fn watch_endpoints(api: Api<Endpoints>, which: watcher::Config, record: Arc<Mutex<Record>>) {
    let mut events = pin!(watcher(api, which));
    let mut endpoints = None;
    while let Some(event) = events.next().await {
        match event.unwrap() {
            Event::Init => {
                endpoints = None;
                continue;
            }
            Event::InitApply(object) => {
                endpoints = Some(object);
                continue;
            }
            Event::InitDone => {}
            Event::Apply(object) => endpoints = Some(object),
            Event::Delete(_) => endpoints = None,
        }
        let published = Published { slices: Vec::new(), endpoints: endpoints.clone() };
        record.lock().unwrap().in_endpoints.push(published.in_endpoints());
    }
}

/// Addresses as a set.
pub fn set(addresses: &[&str]) -> BTreeSet<String> {
    addresses.iter().map(|&address| address.to_owned()).collect()
}

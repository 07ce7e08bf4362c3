//! Observers of what the test's namespace publishes.

use std::collections::BTreeSet;

use beatkeeper_test_support::{EndpointsObserver, History, Select, SliceObserver};
use kube::api::ListParams;

use super::{TestNamespace, namespace::PATIENCE};

const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";

impl TestNamespace {
    /// Observes the slices of a Service: all addresses that they list. Returns when it has seen an address.
    pub async fn observe(&self, service: &str) -> SliceObserver {
        let observer =
            SliceObserver::of_service(self.api(), service, Select::Listed).await.unwrap();
        let something = |history: &History| (!history.published().is_empty()).then_some(());
        observer.until("an address is published", PATIENCE, something).await.unwrap();
        observer
    }

    /// Observes all slices of the namespace: the addresses that are ready.
    pub async fn observe_all(&self) -> SliceObserver {
        SliceObserver::start(self.api(), ListParams::default(), Select::Ready).await.unwrap()
    }
}

/// Observes the slices of a Service and its Endpoints.
pub struct ServiceObserver {
    slices: SliceObserver,
    endpoints: EndpointsObserver,
}

impl ServiceObserver {
    /// Starts to observe. The current state is recorded when this returns.
    pub async fn of(ns: &TestNamespace, service: &str) -> Self {
        let slices = SliceObserver::of_service(ns.api(), service, Select::Listed).await.unwrap();
        let endpoints = EndpointsObserver::of_service(ns.api(), service).await.unwrap();
        Self { slices, endpoints }
    }

    /// Waits until the last state of the slices and of Endpoints is exactly this set.
    pub async fn sees(&self, addresses: &BTreeSet<String>) {
        let are = |history: &History| (history.published() == *addresses).then_some(());
        self.slices.until("the slices have the last state", PATIENCE, are).await.unwrap();
        self.sees_in_endpoints(addresses).await;
    }

    /// Waits until the last state of the Endpoints is exactly this set.
    pub async fn sees_in_endpoints(&self, addresses: &BTreeSet<String>) {
        let are = |history: &History| (history.published() == *addresses).then_some(());
        self.endpoints.until("the Endpoints have the last state", PATIENCE, are).await.unwrap();
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
        self.always_in_slices(addresses);
        self.endpoints.always_published(addresses).unwrap();
    }

    /// Panics if any of these addresses was missing from the slices at any moment.
    pub fn always_in_slices(&self, addresses: &BTreeSet<String>) {
        self.slices.always_published(addresses).unwrap();
    }

    /// Whether an address was published at any moment.
    pub fn ever_saw(&self, address: &str) -> bool {
        let saw = |history: &History| history.changes().iter().any(|it| it.address == address);
        self.slices.look(saw) || self.endpoints.look(saw)
    }

    /// The managers of all slices that this Service has had.
    pub fn managers(&self) -> BTreeSet<String> {
        self.slices.look(|history| history.managers().clone())
    }

    /// The number of states of the slices and of the Endpoints.
    pub fn states(&self) -> (usize, usize) {
        (self.slices.look(History::states), self.endpoints.look(History::states))
    }
}

/// Addresses as a set.
pub fn set(addresses: &[&str]) -> BTreeSet<String> {
    addresses.iter().map(|&address| address.to_owned()).collect()
}

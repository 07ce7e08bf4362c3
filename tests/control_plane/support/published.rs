//! What a Service publishes, read as any client reads it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};
use kube::{Api, Client, api::ListParams};

/// The slices and the Endpoints of a Service at one moment.
#[derive(Debug, Clone)]
pub struct Published {
    pub slices: Vec<EndpointSlice>,
    pub endpoints: Option<Endpoints>,
}

impl Published {
    pub async fn read(client: &Client, namespace: &str, service: &str) -> Self {
        let of_service =
            ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace)
            .list(&of_service)
            .await
            .unwrap()
            .items;
        let endpoints =
            Api::<Endpoints>::namespaced(client.clone(), namespace).get_opt(service).await.unwrap();
        Self { slices, endpoints }
    }

    /// Addresses with their conditions (ready, serving, terminating), from all slices.
    pub fn conditions(&self) -> BTreeMap<String, (bool, bool, bool)> {
        let endpoints = self.slices.iter().flat_map(|slice| &slice.endpoints);
        endpoints
            .map(|endpoint| {
                let conditions = endpoint.conditions.as_ref().expect("conditions are explicit");
                let explicit =
                    |condition: Option<bool>| condition.expect("conditions are explicit");
                (
                    endpoint.addresses[0].clone(),
                    (
                        explicit(conditions.ready),
                        explicit(conditions.serving),
                        explicit(conditions.terminating),
                    ),
                )
            })
            .collect()
    }

    /// The addresses that the slices list as ready.
    pub fn ready(&self) -> BTreeSet<String> {
        let all = self.conditions();
        all.into_iter().filter(|(_, (ready, ..))| *ready).map(|(address, _)| address).collect()
    }

    /// Every address:port of the slices with the name of its port. Panics if an entry occurs twice.
    pub fn address_ports(&self) -> BTreeSet<(String, String, i32)> {
        let mut all = BTreeSet::new();
        for slice in &self.slices {
            for endpoint in &slice.endpoints {
                for port in slice.ports.iter().flatten() {
                    let name = port.name.clone().unwrap_or_default();
                    let entry = (endpoint.addresses[0].clone(), name, port.port.unwrap());
                    assert!(all.insert(entry.clone()), "{entry:?} is published twice");
                }
            }
        }
        all
    }

    /// The addresses that the Endpoints object lists as ready.
    pub fn in_endpoints(&self) -> BTreeSet<String> {
        let subsets =
            self.endpoints.iter().flat_map(|endpoints| endpoints.subsets.iter().flatten());
        subsets
            .flat_map(|subset| subset.addresses.iter().flatten())
            .map(|address| address.ip.clone())
            .collect()
    }

    /// The addresses that the Endpoints object lists as not ready.
    pub fn not_ready_in_endpoints(&self) -> BTreeSet<String> {
        let subsets =
            self.endpoints.iter().flat_map(|endpoints| endpoints.subsets.iter().flatten());
        subsets
            .flat_map(|subset| subset.not_ready_addresses.iter().flatten())
            .map(|address| address.ip.clone())
            .collect()
    }
}

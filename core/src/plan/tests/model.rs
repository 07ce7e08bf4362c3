//! A model of the API server, with the behaviour that matters to the planner. It names the objects that are created and
//! counts resourceVersions. It refuses a write that was planned from another resourceVersion, or that breaks a rule of
//! the API server. It regroups Endpoints.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::{
        core::v1::{EndpointSubset, Endpoints},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Family, Plan, Tuple, Write, marks};

/// Number of characters that the API server appends to a generated name.
const SUFFIX: usize = 5;
/// Maximum length of a generated name.
const NAME_MAX: usize = 63;

/// The resourceVersions of the slices that a plan has written so far.
pub type Sent = BTreeMap<String, String>;

#[derive(Clone, Default)]
pub struct Server {
    pub slices: BTreeMap<String, EndpointSlice>,
    pub endpoints: Option<Endpoints>,
    version: u64,
}

impl Server {
    /// Carries out a plan as its caller has to, and checks after each write that no wanted tuple is lost.
    pub fn carry_out(&mut self, plan: &Plan, wanted: &BTreeSet<Tuple>) {
        let mut published: BTreeSet<Tuple> = &self.tuples() & wanted;
        let mut sent = Sent::new();
        for write in plan.writes() {
            self.send(write, &mut sent);
            let now = &self.tuples() & wanted;
            assert!(published.is_subset(&now), "[{write}] of [{plan}] loses some of {published:?}");
            published = now;
        }
    }

    /// Sends one write, after the writes that were sent before.
    pub fn send(&mut self, write: &Write, sent: &mut Sent) {
        let mut write = write.clone();
        let name = write.slice_name().map(str::to_owned);
        if let Some(version) = name.as_ref().and_then(|name| sent.get(name)) {
            write.rebase(version);
        }
        self.apply(write);
        if let Some(name) = name {
            sent.insert(name, self.version.to_string());
        }
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::CreateSlice(mut slice) => {
                let metadata = &mut slice.metadata;
                assert_eq!(metadata.name, None);
                assert_eq!(metadata.resource_version, None);
                let mut name = metadata.generate_name.clone().unwrap();
                name.truncate(NAME_MAX - SUFFIX);
                name.push_str(&format!("{:05}", self.version));
                metadata.name = Some(name);
                self.store_slice(slice);
            }
            Write::UpdateSlice(slice, tally) => {
                let name = slice.metadata.name.clone().unwrap();
                let stored = self.slices.get(&name).expect("the slice is there");
                assert_same_object(&stored.metadata, &slice.metadata);
                assert_eq!(stored.address_type, slice.address_type, "it cannot be changed");
                assert_ne!(
                    without_noise(stored, &stored.metadata),
                    without_noise(&slice, &slice.metadata),
                    "a write that changes nothing"
                );
                assert_eq!(
                    stored.endpoints.len() + tally.added,
                    slice.endpoints.len() + tally.removed,
                    "the tally is wrong"
                );
                self.store_slice(slice);
            }
            Write::DeleteSlice { name, uid, resource_version } => {
                let stored = self.slices.remove(&name).expect("the slice is there");
                assert_eq!(stored.metadata.uid, Some(uid));
                assert_eq!(stored.metadata.resource_version, Some(resource_version));
            }
            Write::CreateEndpoints(endpoints) => {
                assert!(self.endpoints.is_none());
                self.store_endpoints(endpoints);
            }
            Write::UpdateEndpoints(endpoints, _) => {
                let stored = self.endpoints.as_ref().expect("the object is there");
                assert_same_object(&stored.metadata, &endpoints.metadata);
                let regrouped = regrouped(endpoints.clone());
                assert_ne!(
                    without_noise(stored, &stored.metadata),
                    without_noise(&regrouped, &regrouped.metadata),
                    "a write that changes nothing"
                );
                self.store_endpoints(endpoints);
            }
            Write::DeleteEndpoints { name, uid, resource_version } => {
                let stored = self.endpoints.take().expect("the object is there");
                assert_eq!(stored.metadata.name, Some(name));
                assert_eq!(stored.metadata.uid, Some(uid));
                assert_eq!(stored.metadata.resource_version, Some(resource_version));
            }
        }
    }

    /// Stores a slice without any check of its version, as `kubectl edit` by a user does.
    pub fn store_slice(&mut self, mut slice: EndpointSlice) {
        assert!(slice.endpoints.len() <= 1000, "the API server accepts no more");
        self.stamp(&mut slice.metadata);
        let name = slice.metadata.name.clone().unwrap();
        self.slices.insert(name, through_json(&slice));
    }

    pub fn store_endpoints(&mut self, mut endpoints: Endpoints) {
        self.stamp(&mut endpoints.metadata);
        self.endpoints = Some(regrouped(endpoints));
    }

    fn stamp(&mut self, metadata: &mut ObjectMeta) {
        let references = metadata.owner_references.iter().flatten();
        assert!(references.filter(|it| it.controller == Some(true)).count() <= 1);
        self.version += 1;
        let name = metadata.name.clone().unwrap();
        assert!(name.len() <= 253);
        metadata.uid.get_or_insert(format!("uid-of-{name}"));
        metadata.resource_version = Some(self.version.to_string());
    }

    /// The tuples that consumers see in the slices.
    pub fn tuples(&self) -> BTreeSet<Tuple> {
        self.tuples_in_all().into_iter().collect()
    }

    /// The same, including tuples that occur twice.
    pub fn tuples_in_all(&self) -> Vec<Tuple> {
        let mut tuples = Vec::new();
        for slice in self.slices.values().filter(|slice| is_seen(slice)) {
            let ports = slice.ports.as_deref().unwrap_or_default();
            for address in slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
                let Ok(address) = address.parse() else { continue };
                if Family::of(address).as_str() != slice.address_type {
                    continue;
                }
                if ports.is_empty() {
                    tuples.push((address, None));
                }
                for port in ports {
                    let Some(number) = port.port else { continue };
                    let name = port.name.clone().unwrap_or_default();
                    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
                    tuples.push((address, Some((name, number, protocol))));
                }
            }
        }
        tuples
    }

    /// The sizes of the slices, in the order of their names.
    pub fn sizes(&self) -> Vec<usize> {
        self.slices.values().map(|slice| slice.endpoints.len()).collect()
    }

    pub fn the_slice(&self) -> EndpointSlice {
        assert_eq!(self.slices.len(), 1);
        self.slices.values().next().cloned().unwrap()
    }

    pub fn subsets(&self) -> Vec<EndpointSubset> {
        self.endpoints.clone().unwrap().subsets.unwrap_or_default()
    }
}

fn is_seen(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.clone().unwrap_or_default();
    slice.metadata.deletion_timestamp.is_none()
        && labels.get(marks::SERVICE_NAME_LABEL).is_some_and(|name| name.starts_with("greeter"))
}

fn assert_same_object(stored: &ObjectMeta, sent: &ObjectMeta) {
    assert_eq!(stored.name, sent.name);
    assert_eq!(stored.uid, sent.uid);
    assert_eq!(stored.resource_version, sent.resource_version, "conflict");
}

/// An object without the fields that alone are no reason to write it.
fn without_noise(object: &impl Serialize, metadata: &ObjectMeta) -> serde_json::Value {
    let mut object = serde_json::to_value(object).unwrap();
    let mut metadata = ObjectMeta { resource_version: None, ..metadata.clone() };
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(marks::TRIGGER_TIME_ANNOTATION);
    }
    metadata.annotations = metadata.annotations.filter(|annotations| !annotations.is_empty());
    object["metadata"] = serde_json::to_value(metadata).unwrap();
    object
}

fn through_json<T: Serialize + DeserializeOwned>(object: &T) -> T {
    serde_json::from_value(serde_json::to_value(object).unwrap()).unwrap()
}

/// Groups ports by the addresses that have them, as RepackSubsets does.
fn regrouped(mut endpoints: Endpoints) -> Endpoints {
    let mut by_port: BTreeMap<String, BTreeSet<(String, bool)>> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let mut ports: Vec<String> = subset.ports.iter().flatten().map(text).collect();
        if ports.is_empty() {
            ports.push(String::new());
        }
        for port in ports {
            let set = by_port.entry(port).or_default();
            set.extend(subset.addresses.iter().flatten().map(|it| (text(it), true)));
            set.extend(subset.not_ready_addresses.iter().flatten().map(|it| (text(it), false)));
        }
    }
    let mut by_addresses: BTreeMap<BTreeSet<(String, bool)>, Vec<String>> = BTreeMap::new();
    for (port, addresses) in by_port {
        by_addresses.entry(addresses).or_default().push(port);
    }
    let list = |addresses: &BTreeSet<(String, bool)>, ready: bool| {
        let matching = addresses.iter().filter(|(_, is_ready)| *is_ready == ready);
        let list: Vec<_> =
            matching.map(|(address, _)| serde_json::from_str(address).unwrap()).collect();
        Some(list).filter(|list| !list.is_empty())
    };
    let subsets: Vec<EndpointSubset> = by_addresses
        .iter()
        .map(|(addresses, ports)| EndpointSubset {
            addresses: list(addresses, true),
            not_ready_addresses: list(addresses, false),
            ports: Some(
                ports
                    .iter()
                    .filter(|port| !port.is_empty())
                    .map(|port| serde_json::from_str(port).unwrap())
                    .collect(),
            ),
        })
        .collect();
    endpoints.subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    through_json(&endpoints)
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

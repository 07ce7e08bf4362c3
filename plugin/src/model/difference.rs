//! What would change if a registration published: the rows of what is published, and of what would be.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use beatkeeper_api::ServiceRegistration;
use beatkeeper_core::{
    objects::{
        registration::{PortTemplate, TargetPort},
        service::{ServicePortView, ServiceView},
    },
    vocabulary::key::Key,
};
use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};

use super::{
    instance::Published,
    kind::Kind,
    planned::{Assuming, Planned, planned},
    publication::how,
    registration::RegistrationView,
    store::Store,
};

/// One address with one port, in the order in which rows are shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The address as a number, so that rows are in the order of the addresses.
    order: Option<IpAddr>,
    /// The address.
    pub address: String,
    /// The port, such as `http 8080/TCP`; empty if there is none.
    pub port: String,
}

impl Row {
    fn of(address: &str, port: String) -> Self {
        Self { order: address.parse().ok(), address: address.to_owned(), port }
    }
}

/// The rows of an object, each with what it says of the row.
pub type Rows = BTreeMap<Row, String>;

/// One kind of object of a Service, as it is and as it would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectDifference {
    /// The kind.
    pub kind: Kind,
    /// Namespace and name of the Service.
    pub service: Key,
    /// As it is.
    pub before: Rows,
    /// As it would be.
    pub after: Rows,
}

/// A row that would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange<'a> {
    /// The row.
    pub row: &'a Row,
    /// What is said of it; `None` if it is not there.
    pub before: Option<&'a str>,
    /// What would be said of it; `None` if it would not be there.
    pub after: Option<&'a str>,
}

impl ObjectDifference {
    /// All rows of both, in order, whether they would change or not.
    pub fn rows(&self) -> impl Iterator<Item = RowChange<'_>> {
        let all: BTreeSet<&Row> = self.before.keys().chain(self.after.keys()).collect();
        all.into_iter().map(|row| RowChange {
            row,
            before: self.before.get(row).map(String::as_str),
            after: self.after.get(row).map(String::as_str),
        })
    }

    /// The rows that would change.
    pub fn changes(&self) -> impl Iterator<Item = RowChange<'_>> {
        self.rows().filter(|change| change.before != change.after)
    }
}

/// All that would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The kinds of objects of the Service.
    pub objects: Vec<ObjectDifference>,
    /// Whether it depends on a setting of the operator that no object tells: the operator is taken to write Endpoints.
    pub assumes_endpoints: bool,
}

impl Difference {
    /// The difference between what is published of a registration and what would be.
    pub fn of(
        store: &Store,
        object: &ServiceRegistration,
        view: &RegistrationView,
        assuming: Assuming,
        now: Timestamp,
    ) -> Self {
        let planned = planned(store, object, view, assuming, now);
        let service = Key::new(&*view.key.namespace, &*view.service_name);
        let slices = store.slices.get(&service).into_iter().flat_map(BTreeMap::values);
        let slices = ObjectDifference {
            kind: Kind::EndpointSlice,
            before: in_slices(slices),
            after: in_slices(&planned.slices),
            service: service.clone(),
        };
        let endpoints = ObjectDifference {
            kind: Kind::Endpoints,
            before: store.endpoints.get(&service).map(in_endpoints).unwrap_or_default(),
            after: planned.endpoints.as_ref().map(in_endpoints).unwrap_or_default(),
            service: service.clone(),
        };
        let objects = of_service(store, service, &planned).into_iter();
        Self {
            objects: objects.chain([slices, endpoints]).collect(),
            assumes_endpoints: planned.assumes_endpoints,
        }
    }

    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.objects.iter().all(|object| object.changes().next().is_none())
    }
}

/// The ports of the Service, if the operator writes them.
fn of_service(store: &Store, service: Key, planned: &Planned) -> Option<ObjectDifference> {
    let wanted = planned.service_ports.as_ref()?;
    let existing = store.services.get(&service).map(|it| ServiceView::of(it).ports);
    let row = |name: &str, number: String, protocol: &str| {
        Row::of("port", format!("{}{number}/{protocol}", lead(name)))
    };
    let is = |port: &ServicePortView| {
        let row = row(&port.name, port.port.to_string(), &port.protocol);
        (row, format!("→ {}", port.target_port))
    };
    let would_be = |port: &PortTemplate| {
        let target = match &port.target {
            TargetPort::Number(number) => number.to_string(),
            TargetPort::Name(name) => name.clone(),
        };
        (row(&port.name, port.port.to_string(), port.protocol.as_str()), format!("→ {target}"))
    };
    Some(ObjectDifference {
        kind: Kind::Service,
        before: existing.iter().flatten().map(is).collect(),
        after: wanted.iter().map(would_be).collect(),
        service,
    })
}

fn lead(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{name} ") }
}

fn word(published: Published) -> &'static str {
    match published {
        Published::Ready => "ready",
        Published::Draining => "draining",
        Published::NotReady | Published::No => "not ready",
    }
}

/// The rows of slices. A row that is in several of them counts as it is published best.
fn in_slices<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>) -> Rows {
    let mut best: BTreeMap<Row, Published> = BTreeMap::new();
    for slice in slices {
        let listed = slice.ports.iter().flatten().map(|port| {
            let number = port.port.map_or_else(|| "any".to_owned(), |port| port.to_string());
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            format!("{}{number}/{protocol}", lead(port.name.as_deref().unwrap_or_default()))
        });
        let ports = or_none(listed.collect());
        for endpoint in &slice.endpoints {
            let how = how(endpoint);
            for address in &endpoint.addresses {
                for port in &ports {
                    let known = best.entry(Row::of(address, port.clone())).or_insert(how);
                    *known = (*known).max(how);
                }
            }
        }
    }
    best.into_iter().map(|(row, how)| (row, word(how).to_owned())).collect()
}

fn in_endpoints(endpoints: &Endpoints) -> Rows {
    let mut rows = Rows::new();
    for subset in endpoints.subsets.iter().flatten() {
        let listed = subset.ports.iter().flatten().map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            format!("{}{}/{protocol}", lead(port.name.as_deref().unwrap_or_default()), port.port)
        });
        let ports = or_none(listed.collect());
        let both = [
            (&subset.not_ready_addresses, Published::NotReady),
            (&subset.addresses, Published::Ready),
        ];
        for (addresses, how) in both {
            for address in addresses.iter().flatten() {
                for port in &ports {
                    rows.insert(Row::of(&address.ip, port.clone()), word(how).to_owned());
                }
            }
        }
    }
    rows
}

/// An address without ports has one row, too.
fn or_none(ports: Vec<String>) -> Vec<String> {
    if ports.is_empty() { vec![String::new()] } else { ports }
}

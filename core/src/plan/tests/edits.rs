//! The edits with which a property test changes published objects without the planner.

use k8s_openapi::{
    api::discovery::v1::Endpoint as Published,
    apimachinery::pkg::apis::meta::v1::{OwnerReference, Time},
};
use proptest::{prelude::*, sample::Index};

use super::{properties::PORT_SETS, *};

/// An edit that a user makes to the objects of a Service.
#[derive(Debug, Clone)]
pub enum Edit {
    LoseLabels(Index),
    RenameService(Index),
    LoseOwner(Index),
    ForeignOwner(Index),
    CopySlice(Index),
    CopyEndpoint(Index, Index),
    MergeEndpoints(Index),
    ForeignObjects(Index),
    Nonsense(Index),
    NilConditions(Index, Index),
    NilPort(Index),
    OtherPorts(Index, usize),
    Deleting(Index),
    OtherType(Index),
    LoseEndpoints,
}

pub fn edit() -> impl Strategy<Value = Edit> {
    let some = any::<Index>;
    prop_oneof![
        1 => some().prop_map(Edit::LoseLabels),
        1 => some().prop_map(Edit::RenameService),
        1 => some().prop_map(Edit::LoseOwner),
        1 => some().prop_map(Edit::ForeignOwner),
        4 => some().prop_map(Edit::CopySlice),
        4 => (some(), some()).prop_map(|(a, b)| Edit::CopyEndpoint(a, b)),
        1 => some().prop_map(Edit::MergeEndpoints),
        1 => some().prop_map(Edit::ForeignObjects),
        1 => some().prop_map(Edit::Nonsense),
        1 => (some(), some()).prop_map(|(a, b)| Edit::NilConditions(a, b)),
        1 => some().prop_map(Edit::NilPort),
        2 => (some(), 0..PORT_SETS.len()).prop_map(|(a, b)| Edit::OtherPorts(a, b)),
        1 => some().prop_map(Edit::Deleting),
        1 => some().prop_map(Edit::OtherType),
        1 => Just(Edit::LoseEndpoints),
    ]
}

pub fn apply(edit: &Edit, server: &mut Server, serial: usize) {
    if matches!(edit, Edit::LoseEndpoints) {
        server.endpoints = None;
        return;
    }
    if server.slices.is_empty() {
        return;
    }
    let slices: Vec<EndpointSlice> = server.slices.values().cloned().collect();
    let pick = |index: &Index| slices[index.index(slices.len())].clone();
    let renamed = |mut slice: EndpointSlice| {
        slice.metadata.name = Some(format!("copy-{serial}"));
        slice.metadata.uid = None;
        slice
    };
    let edited = match edit {
        Edit::LoseLabels(index) => {
            let mut slice = pick(index);
            slice.metadata.labels = None;
            slice
        }
        Edit::RenameService(index) => {
            let mut slice = pick(index);
            let labels = slice.metadata.labels.get_or_insert_default();
            labels.insert(marks::SERVICE_NAME_LABEL.to_owned(), "stranger".to_owned());
            slice
        }
        Edit::LoseOwner(index) => {
            let mut slice = pick(index);
            slice.metadata.annotations = None;
            slice
        }
        Edit::ForeignOwner(index) => {
            let mut slice = pick(index);
            slice.metadata.owner_references = Some(vec![OwnerReference {
                api_version: "apps/v1".to_owned(),
                kind: "Deployment".to_owned(),
                name: "greeter".to_owned(),
                uid: "stranger".to_owned(),
                controller: Some(true),
                block_owner_deletion: None,
            }]);
            slice
        }
        Edit::CopySlice(index) => renamed(pick(index)),
        Edit::CopyEndpoint(from, to) => {
            let (from, mut to) = (pick(from), pick(to));
            if from.address_type == to.address_type {
                to.endpoints.extend(from.endpoints.first().cloned());
            }
            to
        }
        Edit::MergeEndpoints(index) => {
            let mut slice = pick(index);
            if slice.endpoints.len() > 1 {
                let addresses = slice.endpoints.remove(0).addresses;
                slice.endpoints[0].addresses.extend(addresses);
            }
            slice
        }
        Edit::ForeignObjects(index) => {
            let mut slice = pick(index);
            let address = if slice.address_type == "IPv4" { "203.0.113.9" } else { "2001:db8::9" };
            slice
                .endpoints
                .push(Published { addresses: vec![address.to_owned()], ..Published::default() });
            slice
        }
        Edit::Nonsense(index) => {
            let mut slice = pick(index);
            slice
                .endpoints
                .push(Published { addresses: vec!["nonsense".to_owned()], ..Published::default() });
            slice
        }
        Edit::NilConditions(index, which) => {
            let mut slice = pick(index);
            if !slice.endpoints.is_empty() {
                let which = which.index(slice.endpoints.len());
                slice.endpoints[which].conditions = None;
            }
            slice
        }
        Edit::NilPort(index) => {
            let mut slice = pick(index);
            for port in slice.ports.iter_mut().flatten().take(1) {
                port.port = None;
            }
            slice
        }
        Edit::OtherPorts(index, sets) => {
            let mut slice = pick(index);
            slice.ports = Some(super::super::read::write_ports(&ports(PORT_SETS[*sets][0])));
            slice
        }
        Edit::Deleting(index) => {
            let mut slice = pick(index);
            slice.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
            slice
        }
        Edit::OtherType(index) => {
            let mut slice = renamed(pick(index));
            "FQDN".clone_into(&mut slice.address_type);
            slice
        }
        Edit::LoseEndpoints => return,
    };
    server.store_slice(edited);
}

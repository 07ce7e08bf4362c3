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
    let slices: Vec<EndpointSlice> = server.slices.values().cloned().collect();
    if !slices.is_empty() {
        let pick = |index: &Index| slices[index.index(slices.len())].clone();
        server.store_slice(edited(edit, pick, serial));
    }
}

/// One of the slices after the edit. `pick` returns the slice at an index.
fn edited(edit: &Edit, pick: impl Fn(&Index) -> EndpointSlice, serial: usize) -> EndpointSlice {
    let with = |index: &Index, change: &dyn Fn(&mut EndpointSlice)| {
        let mut slice = pick(index);
        change(&mut slice);
        slice
    };
    match edit {
        Edit::LoseLabels(index) => with(index, &|it| it.metadata.labels = None),
        Edit::RenameService(index) => with(index, &rename_service),
        Edit::LoseOwner(index) => with(index, &|it| it.metadata.annotations = None),
        Edit::ForeignOwner(index) => with(index, &give_to_deployment),
        Edit::CopySlice(index) => with(index, &|it| make_new(it, serial)),
        Edit::CopyEndpoint(from, to) => with(to, &|it| copy_endpoint(&pick(from), it)),
        Edit::MergeEndpoints(index) => with(index, &merge_endpoints),
        Edit::ForeignObjects(index) => with(index, &add_stranger),
        Edit::Nonsense(index) => with(index, &|it| add_endpoint(it, "nonsense")),
        Edit::NilConditions(index, which) => with(index, &|it| remove_conditions(it, which)),
        Edit::NilPort(index) => with(index, &remove_port),
        Edit::OtherPorts(index, sets) => with(index, &|it| {
            it.ports = Some(super::super::read::write_ports(&ports(PORT_SETS[*sets][0])));
        }),
        Edit::Deleting(index) => with(index, &|it| {
            it.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        }),
        Edit::OtherType(index) => with(index, &|it| {
            make_new(it, serial);
            "FQDN".clone_into(&mut it.address_type);
        }),
        Edit::LoseEndpoints => unreachable!("it edits no slice"),
    }
}

fn make_new(slice: &mut EndpointSlice, serial: usize) {
    slice.metadata.name = Some(format!("copy-{serial}"));
    slice.metadata.uid = None;
}

fn rename_service(slice: &mut EndpointSlice) {
    let labels = slice.metadata.labels.get_or_insert_default();
    labels.insert(marks::SERVICE_NAME_LABEL.to_owned(), "stranger".to_owned());
}

fn give_to_deployment(slice: &mut EndpointSlice) {
    slice.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        name: "greeter".to_owned(),
        uid: "stranger".to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
}

fn copy_endpoint(from: &EndpointSlice, to: &mut EndpointSlice) {
    if from.address_type == to.address_type {
        to.endpoints.extend(from.endpoints.first().cloned());
    }
}

fn merge_endpoints(slice: &mut EndpointSlice) {
    if slice.endpoints.len() > 1 {
        let addresses = slice.endpoints.remove(0).addresses;
        slice.endpoints[0].addresses.extend(addresses);
    }
}

fn add_stranger(slice: &mut EndpointSlice) {
    let address = if slice.address_type == "IPv4" { "203.0.113.9" } else { "2001:db8::9" };
    add_endpoint(slice, address);
}

fn add_endpoint(slice: &mut EndpointSlice, address: &str) {
    let addresses = vec![address.to_owned()];
    slice.endpoints.push(Published { addresses, ..Published::default() });
}

fn remove_conditions(slice: &mut EndpointSlice, which: &Index) {
    if !slice.endpoints.is_empty() {
        let which = which.index(slice.endpoints.len());
        slice.endpoints[which].conditions = None;
    }
}

fn remove_port(slice: &mut EndpointSlice) {
    for port in slice.ports.iter_mut().flatten().take(1) {
        port.port = None;
    }
}

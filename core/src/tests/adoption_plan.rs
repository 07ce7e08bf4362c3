//! Which hand-written objects can be taken over, and the message of each refusal.

use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};

use super::*;
use crate::{
    adoption::{
        plan::{self, AdoptionPlan, plan},
        refusal::AdoptionRefusal,
        scene::{AdoptionInputs, ForeignObjects},
    },
    objects::{consent::Consent, marks},
};

mod left_behind;

const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";

fn hand_written(addresses: &[&str]) -> Endpoints {
    let addresses: Vec<Value> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
    from(json!({
        "metadata": { "name": "greeter", "resourceVersion": "7" },
        "subsets": [{ "addresses": addresses, "ports": [{ "name": "http", "port": 9001 }] }],
    }))
}

fn slice(addresses: &[&str], changes: Value) -> EndpointSlice {
    let endpoints: Vec<Value> = addresses.iter().map(|ip| json!({ "addresses": [ip] })).collect();
    let mut slice = json!({
        "metadata": { "name": "by-hand", "labels": {} },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 9001, "protocol": "TCP" }],
        "endpoints": endpoints,
    });
    let (Some(slice_fields), Value::Object(changes)) = (slice.as_object_mut(), changes) else {
        panic!("objects")
    };
    slice_fields.extend(changes);
    from(slice)
}

fn from<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

fn managed_by(manager: &str) -> Value {
    json!({ "metadata": { "name": "by-hand", "labels": {
        "endpointslice.kubernetes.io/managed-by": manager,
    }}})
}

fn of_endpoints(endpoints: Endpoints) -> ForeignObjects {
    ForeignObjects { endpoints: Some(endpoints), has_endpoints: true, slices: Vec::new() }
}

fn of_slice(slice: EndpointSlice) -> ForeignObjects {
    ForeignObjects { endpoints: None, has_endpoints: false, slices: vec![slice] }
}

struct Case {
    world: World,
    index: Index,
    left_by_cluster: bool,
    /// The name of a Pod that cannot be read.
    unread: Option<String>,
}

impl Case {
    fn new() -> Self {
        let mut world = World::new();
        world.registration.consent = Consent::All;
        Self { world, index: index(), left_by_cluster: false, unread: None }
    }

    fn plan(&self, foreign: &ForeignObjects) -> Result<AdoptionPlan, AdoptionRefusal> {
        let World { registration, families, ranges, owned, adopted, .. } = &self.world;
        plan(
            &AdoptionInputs {
                registration,
                families,
                ports: &registration.ports,
                ranges,
                owner_of: &|ip| (*owned == Some(ip)).then(|| "Pod shop/cart".to_owned()),
                left_by_cluster: self.left_by_cluster,
                pod: &|name| self.world.pods.get(name).cloned(),
                is_unread: &|name| self.unread == Some(name.to_owned()),
                adopted,
                verdicts: &self.world.decide(&self.index, at(0)),
                wall: "2026-11-22T10:00:00.5Z".parse().expect("a time"),
            },
            foreign,
        )
    }

    fn refused(&self, foreign: &ForeignObjects) -> String {
        self.plan(foreign).expect_err("refused").to_string()
    }

    fn names(&self, foreign: &ForeignObjects) -> Vec<String> {
        let takeover = self.plan(foreign).expect("taken over");
        takeover.newcomers.into_iter().map(|adopted| adopted.entry.name).collect()
    }
}

fn owner() -> marks::Owner {
    let [namespace, name, uid] = ["shop", "greeter", "sreg-uid"].map(str::to_owned);
    marks::Owner { namespace, name, uid }
}

#[test]
fn endpoints_are_taken_over_with_their_ports_and_marked_so_that_mirroring_ends() {
    let takeover = Case::new()
        .plan(&of_endpoints(hand_written(&["192.0.2.1", "192.0.2.2"])))
        .expect("taken over");
    let entries: Vec<Value> = takeover
        .newcomers
        .iter()
        .map(|adopted| serde_json::to_value(&adopted.entry).expect("JSON"))
        .collect();
    assert_eq!(
        entries[0],
        json!({
            "name": "adopted/192.0.2.1", "address": "192.0.2.1", "from": "Endpoints greeter",
            "since": "2026-11-22T10:00:00Z", "ports": [{ "name": "http", "port": 9001 }],
        })
    );
    assert_eq!(entries.len(), 2);
    let mut marked = takeover.endpoints.expect("the Endpoints");
    plan::mark_endpoints(&owner(), &mut marked);
    let labels = marked.metadata.labels.clone().expect("labels");
    assert_eq!(labels["endpoints.kubernetes.io/managed-by"], "beatkeeper.dev");
    assert_eq!(labels["endpointslice.kubernetes.io/skip-mirror"], "true");
    assert_eq!(marked.metadata.resource_version.as_deref(), Some("7"));
    assert_eq!(marked.subsets, hand_written(&["192.0.2.1", "192.0.2.2"]).subsets);
}

#[test]
fn slices_are_marked_as_they_are_and_mirrored_ones_are_left_to_the_cluster() {
    let details = json!({ "endpoints": [{
        "addresses": ["192.0.2.1"], "conditions": { "ready": false }, "nodeName": "node-1",
        "zone": "eu-1a", "hostname": "first",
    }]});
    let mut foreign = of_slice(slice(&[], details));
    foreign.slices.push(slice(&["192.0.2.9"], managed_by(MIRROR)));
    foreign.has_endpoints = true;
    let takeover = Case::new().plan(&foreign).expect("taken over");
    let [adopted] = takeover.newcomers.as_slice() else { panic!("{takeover:?}") };
    let entry = &adopted.entry;
    assert!(entry.not_ready);
    assert_eq!(
        [&entry.node_name, &entry.zone, &entry.hostname].map(|field| field.as_deref()),
        [Some("node-1"), Some("eu-1a"), Some("first")]
    );
    let [taken] = takeover.slices.as_slice() else { panic!("{takeover:?}") };
    let mut marked = taken.clone();
    plan::mark_slice(&owner(), &mut marked);
    let labels = marked.metadata.labels.clone().expect("labels");
    assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "beatkeeper.dev");
    assert_eq!(marked.endpoints, foreign.slices[0].endpoints);
    assert_eq!(marks::owned_by(&marked.metadata), Some("shop:greeter/sreg-uid"));
}

#[test]
fn what_two_objects_say_of_one_address_is_one_instance_unless_their_ports_disagree() {
    let mut foreign = of_endpoints(hand_written(&["192.0.2.1"]));
    foreign.slices = vec![slice(&["192.0.2.1", "192.0.2.2"], json!({}))];
    assert_eq!(Case::new().names(&foreign), ["adopted/192.0.2.1", "adopted/192.0.2.2"]);
    let other = json!({ "ports": [{ "name": "http", "port": 9002, "protocol": "TCP" }] });
    foreign.slices = vec![slice(&["192.0.2.1"], other)];
    assert_eq!(Case::new().names(&foreign), ["adopted/192.0.2.1", "adopted/192.0.2.1#2"]);
}

#[test]
fn adopted_and_beating_instances_are_not_adopted_again() {
    let foreign = of_endpoints(hand_written(&["192.0.2.1", "192.0.2.2"]));
    let mut case = Case::new();
    case.index.observe("shop", beat("vm-1", 1, 1), at(0));
    assert_eq!(case.names(&foreign), ["adopted/192.0.2.2"]);
    case.world.adopted = Case::new().plan(&foreign).expect("taken over").newcomers;
    assert_eq!(case.names(&foreign), [""; 0]);
}

#[test]
fn a_pod_that_beats_may_be_in_what_is_taken_over() {
    let mut case = Case::new();
    case.world = case.world.pod("p", ready_pod("p", &["10.0.0.1"]));
    case.world.owned = Some("10.0.0.1".parse().expect("an address"));
    let foreign = of_endpoints(hand_written(&["10.0.0.1", "192.0.2.2"]));
    assert!(case.refused(&foreign).contains("10.0.0.1"));
    case.index.observe("shop", pod_beat("p", 1, 1), at(0));
    assert_eq!(case.names(&foreign), ["adopted/192.0.2.2"]);
}

#[test]
fn the_beats_of_an_instance_that_is_not_published_are_noted_as_old() {
    let mut case = Case::new();
    case.index = inherited(&[beat("vm-1", 5, 1)]);
    let foreign = of_endpoints(hand_written(&["192.0.2.1"]));
    let newcomers = case.plan(&foreign).expect("taken over").newcomers;
    assert_eq!(newcomers[0].entry.old_beats, ["uid-1@5"]);
}

#[test]
fn an_address_that_is_not_allowed_is_refused_with_the_object_and_the_remedy() {
    let foreign = of_endpoints(hand_written(&["192.0.2.1", "203.0.113.9"]));
    assert_eq!(
        Case::new().refused(&foreign),
        "Endpoints greeter cannot be taken over, so nothing is: 203.0.113.9 lies outside the ranges \
         allowed for namespace shop (192.0.2.0/24, 2001:db8::/64); ask the operator's administrator \
         to allow it (--outside-range shop=CIDR)"
    );
    let loopback = of_slice(slice(&["127.0.0.1"], json!({})));
    assert!(Case::new().refused(&loopback).contains("EndpointSlice by-hand"));
    assert!(Case::new().refused(&loopback).contains("a loopback address"));
}

#[test]
fn an_address_that_is_not_on_the_list_is_refused_unless_it_was_adopted() {
    let mut case = Case::new();
    let listed = "192.0.2.1".parse().expect("an address");
    case.world.registration.consent = Consent::Only([listed].into());
    let foreign = of_endpoints(hand_written(&["192.0.2.1", "192.0.2.2"]));
    assert_eq!(
        case.refused(&foreign),
        "Endpoints greeter cannot be taken over, so nothing is: 192.0.2.2 is not in the list of \
         annotation beatkeeper.dev/adopt; add it there, or remove it from Endpoints greeter"
    );
    case.world.adopted = Case::new().plan(&foreign).expect("taken over").newcomers;
    assert_eq!(case.names(&foreign), [""; 0]);
}

#[test]
fn ports_that_are_not_the_registrations_are_refused() {
    let refused = |ports: Value| {
        Case::new().refused(&of_slice(slice(&["192.0.2.1"], json!({ "ports": ports }))))
    };
    assert_eq!(
        refused(json!([{ "name": "web", "port": 9001, "protocol": "TCP" }])),
        "EndpointSlice by-hand cannot be taken over, so nothing is: ports has \"web\" (TCP), which is \
         none of spec.ports that the Service has too (\"http\"); ports are matched by name and \
         protocol: make them agree"
    );
    assert!(refused(json!([{ "name": "http", "port": 1, "protocol": "UDP" }])).contains("(UDP)"));
    assert!(refused(json!([{ "name": "http", "protocol": "TCP" }])).contains("no number"));
    assert!(refused(json!([])).contains("ports is empty"));
    // An object that publishes no endpoint does not block a takeover.
    let empty = of_slice(slice(&[], json!({ "ports": [] })));
    assert_eq!(Case::new().names(&empty), [""; 0]);
}

#[test]
fn what_a_program_manages_is_refused() {
    for manager in ["endpointslice-controller.k8s.io", "consul", "submariner.io/lighthouse"] {
        let message = Case::new().refused(&of_slice(slice(&["192.0.2.1"], managed_by(manager))));
        assert_eq!(
            message,
            format!(
                "EndpointSlice by-hand cannot be taken over, so nothing is: label \
                 endpointslice.kubernetes.io/managed-by says that {manager} manages it; if that is a \
                 program, switch it off and delete the object; if people do, set the label to staff"
            )
        );
    }
    for people in ["staff", "cluster-admins"] {
        let foreign = of_slice(slice(&["192.0.2.1"], managed_by(people)));
        assert_eq!(Case::new().names(&foreign), ["adopted/192.0.2.1"]);
    }
}

#[test]
fn what_an_object_controls_is_about_to_go_or_has_no_addresses_is_refused() {
    let controlled = json!({ "metadata": { "name": "by-hand", "ownerReferences": [{
        "apiVersion": "example.com/v1", "kind": "Gateway", "name": "edge", "uid": "u",
        "controller": true,
    }]}});
    let message = Case::new().refused(&of_slice(slice(&["192.0.2.1"], controlled)));
    assert!(message.contains("Gateway edge controls it"), "{message}");
    let mut lock = hand_written(&[]);
    let annotation = "control-plane.alpha.kubernetes.io/leader".to_owned();
    lock.metadata.annotations = Some([(annotation, "{}".to_owned())].into());
    assert!(Case::new().refused(&of_endpoints(lock)).contains("leader election"));
    let going = json!({ "metadata": { "name": "by-hand",
        "deletionTimestamp": "2026-11-22T10:00:00Z" }});
    let message = Case::new().refused(&of_slice(slice(&["192.0.2.1"], going)));
    assert!(message.contains("being deleted"), "{message}");
    let names = json!({ "addressType": "FQDN" });
    let message = Case::new().refused(&of_slice(slice(&["a.example"], names)));
    assert!(message.contains("its addressType is FQDN"), "{message}");
    let orphan = of_slice(slice(&["192.0.2.1"], managed_by(MIRROR)));
    assert!(Case::new().refused(&orphan).contains("mirrors an Endpoints object that is gone"));
}

#[test]
fn an_address_of_a_family_that_the_service_lacks_is_refused() {
    let foreign = of_slice(slice(&["2001:db8::1"], json!({ "addressType": "IPv6" })));
    let message = Case::new().refused(&foreign);
    assert!(message.contains("family IPv6, which Service greeter does not have"), "{message}");
}

#[test]
fn more_than_can_be_remembered_are_refused() {
    let addresses: Vec<String> =
        (0..1001).map(|n| format!("192.0.{}.{}", 2 + n / 250, n % 250)).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut case = Case::new();
    case.world.ranges = ["shop=192.0.0.0/16".parse().expect("a range")].into_iter().collect();
    assert_eq!(case.names(&of_endpoints(hand_written(&addresses[..1000]))).len(), 1000);
    let message = case.refused(&of_endpoints(hand_written(&addresses)));
    assert!(message.contains("1001 addresses"), "{message}");
}

#[test]
fn copies_from_another_namespace_are_adopted_as_hand_written_and_our_own_objects_are_not() {
    let copied = |mark: &str| {
        json!({ "metadata": {
            "name": "greeter-x7k2p", "namespace": "shop",
            "labels": { "endpointslice.kubernetes.io/managed-by": "beatkeeper.dev" },
            "annotations": { "beatkeeper.dev/owned-by": mark },
        }})
    };
    let copy = of_slice(slice(&["192.0.2.1"], copied("another:greeter/uid")));
    let takeover = Case::new().plan(&copy).expect("taken over");
    let [taken] = takeover.slices.as_slice() else { panic!("{takeover:?}") };
    let mut marked = taken.clone();
    plan::mark_slice(&owner(), &mut marked);
    assert_eq!(marks::owned_by(&marked.metadata), Some("shop:greeter/sreg-uid"));
    let ours = of_slice(slice(&["192.0.2.1"], copied("shop:other/uid")));
    assert!(Case::new().refused(&ours).contains("beatkeeper.dev manages it"));
}

//! An instance that was refused or that waits is decided again when the cause goes, even if nothing else
//! happens.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::core::PartialObjectMeta;

use super::*;
use crate::{
    cluster_cache::{ClusterCache, dependents::Asked},
    inputs::{Inputs, snapshot},
};

const MACHINE: &str = "192.0.2.1";

/// Makes a decision of a registration about an outside instance at [`MACHINE`] and a Pod on node-1.
fn asked(cluster: &mut ClusterCache, index: &Index, ranges: &[&str]) {
    let registration = World::new().registration;
    let ranges: OutsideRanges = ranges.iter().map(|range| range.parse().expect("one")).collect();
    let records = index.records_of(&registration.key);
    let mut pods = snapshot::pods("shop", &records, &[], cluster);
    let inputs = Inputs::new(snapshot::take(&registration, cluster), None, None);
    let nodes = std::mem::take(&mut pods.nodes);
    let asked = Asked::of(&registration, &records, &inputs, &ranges, nodes);
    cluster.dependents.note(&registration.key, asked);
    cluster.dependents.take_affected();
}

struct Scene {
    cluster: ClusterCache,
    version: u64,
}

impl Scene {
    fn set() -> Self {
        let mut index = index();
        index.observe("shop", beat("vm-1", 1, 1), at(0));
        index.observe("shop", pod_beat("greeter-1", 1, 2), at(0));
        let mut scene = Self { cluster: ClusterCache::default(), version: 10 };
        let pod = ready_pod("greeter-1", &["10.88.0.1"]);
        scene.show_pod("shop", "greeter-1", pod);
        asked(&mut scene.cluster, &index, &["shop=192.0.2.0/24", "bank=198.51.100.0/24"]);
        scene
    }

    fn put<K: crate::cluster_cache::watched::Watched + serde::de::DeserializeOwned>(
        &mut self,
        namespace: &str,
        name: &str,
        mut object: Value,
    ) -> BTreeSet<Key> {
        self.version += 1;
        let metadata = &mut object["metadata"];
        metadata["name"] = name.into();
        if !namespace.is_empty() {
            metadata["namespace"] = namespace.into();
        }
        metadata["resourceVersion"] = self.version.to_string().into();
        self.cluster.put::<K>(serde_json::from_value(object).expect("an object"));
        self.cluster.dependents.take_affected()
    }

    fn show_pod(&mut self, namespace: &str, name: &str, pod: Value) -> BTreeSet<Key> {
        self.put::<Pod>(namespace, name, pod)
    }

    /// Adds a Pod of another namespace, in this phase and with this address.
    fn other_pod(&mut self, phase: &str, ip: Option<&str>, host_network: bool) -> BTreeSet<Key> {
        let ips: Vec<Value> = ip.iter().map(|ip| json!({ "ip": ip })).collect();
        let pod = json!({
            "spec": { "hostNetwork": host_network, "nodeName": "node-9", "containers": [] },
            "status": { "phase": phase, "podIPs": ips },
        });
        self.show_pod("bank", "job", pod)
    }

    fn owner(&self) -> Option<String> {
        self.cluster.owner_of_address(MACHINE.parse().expect("an address"))
    }
}

fn greeter() -> BTreeSet<Key> {
    [key("greeter")].into()
}

#[test]
fn a_pod_that_takes_or_gives_up_an_address_wakes_the_registration_that_asked_for_it() {
    let gone = |scene: &mut Scene| {
        let pod = json!({ "metadata": {
            "name": "job", "namespace": "bank", "resourceVersion": "99",
        }});
        scene.cluster.remove::<Pod>(&serde_json::from_value(pod).expect("a Pod"));
        scene.cluster.dependents.take_affected()
    };
    type Step = fn(&mut Scene) -> BTreeSet<Key>;
    let ends: [(&str, Step); 4] = [
        ("succeeds", |scene| scene.other_pod("Succeeded", Some(MACHINE), false)),
        ("fails", |scene| scene.other_pod("Failed", Some(MACHINE), false)),
        ("loses its address", |scene| scene.other_pod("Running", None, false)),
        ("gets another", |scene| scene.other_pod("Running", Some("192.0.2.99"), false)),
    ];
    for (what, end) in ends {
        let mut scene = Scene::set();
        assert_eq!(scene.other_pod("Running", Some(MACHINE), false), greeter(), "taken");
        assert_eq!(scene.owner().as_deref(), Some("Pod bank/job"));
        assert_eq!(end(&mut scene), greeter(), "it {what}");
        assert_eq!(scene.owner(), None, "it {what}");
    }
    let mut scene = Scene::set();
    scene.other_pod("Running", Some(MACHINE), false);
    assert_eq!(gone(&mut scene), greeter(), "it is deleted");
    assert_eq!(scene.owner(), None);
}

#[test]
fn a_pod_that_has_run_to_its_end_owns_no_address_from_the_start() {
    let mut scene = Scene::set();
    assert_eq!(scene.other_pod("Succeeded", Some(MACHINE), false), BTreeSet::new());
    assert_eq!(scene.owner(), None);
}

/// The address of a Node does not become free when one of the Pods that share it ends.
#[test]
fn the_address_of_a_pod_on_the_host_network_is_that_of_the_node() {
    let mut scene = Scene::set();
    for phase in ["Running", "Succeeded"] {
        scene.other_pod(phase, Some(MACHINE), true);
        assert_eq!(scene.owner().as_deref(), Some("the Node of Pod bank/job"), "{phase}");
    }
}

#[test]
fn services_and_the_api_servers_slices_wake_it_too() {
    let mut scene = Scene::set();
    let service = |ip: &str| json!({ "metadata": {}, "spec": { "clusterIPs": [ip] } });
    assert_eq!(scene.put::<Service>("bank", "ledger", service(MACHINE)), greeter());
    assert_eq!(scene.put::<Service>("bank", "ledger", service("10.0.0.9")), greeter());
    let slice = |ip: &str| {
        json!({
            "metadata": { "labels": { "kubernetes.io/service-name": "kubernetes" } },
            "addressType": "IPv4", "endpoints": [{ "addresses": [ip] }],
        })
    };
    assert_eq!(scene.put::<EndpointSlice>("default", "kubernetes", slice(MACHINE)), greeter());
    let moved = scene.put::<EndpointSlice>("default", "kubernetes", slice("203.0.113.1"));
    assert_eq!(moved, greeter());
}

#[test]
fn a_zone_that_a_node_gets_late_wakes_the_registrations_with_pods_on_it() {
    let mut scene = Scene::set();
    let node = |zone: Option<&str>| {
        json!({
            "apiVersion": "v1", "kind": "PartialObjectMetadata",
            "metadata": { "labels": { "topology.kubernetes.io/zone": zone.unwrap_or_default() } },
        })
    };
    let mut show = |name: &str, zone| scene.put::<PartialObjectMeta<Node>>("", name, node(zone));
    assert_eq!(show("node-1", None), greeter(), "the Node itself may come late");
    assert_eq!(show("node-1", Some("eu-1a")), greeter());
    assert_eq!(show("node-1", Some("eu-1b")), greeter(), "moved");
    assert_eq!(show("node-1", Some("eu-1b")), BTreeSet::new(), "nothing has changed");
    assert_eq!(show("node-2", Some("eu-1a")), BTreeSet::new(), "another Node");
}

#[test]
fn what_no_decision_has_asked_for_wakes_no_registration() {
    let mut scene = Scene::set();
    let service = json!({ "metadata": {}, "spec": { "clusterIPs": ["192.0.2.77"] } });
    assert_eq!(scene.put::<Service>("bank", "ledger", service), BTreeSet::new());
    scene.cluster.dependents.forget(&key("greeter"));
    assert_eq!(scene.other_pod("Running", Some(MACHINE), false), BTreeSet::new());
}

/// An entry would be kept for each address that a Lease may name, although the owner of an address outside the
/// ranges makes no difference.
#[test]
fn an_address_outside_the_allowed_ranges_is_not_asked_for() {
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(0));
    let mut scene = Scene { cluster: ClusterCache::default(), version: 10 };
    asked(&mut scene.cluster, &index, &["bank=192.0.2.0/24"]);
    assert_eq!(scene.other_pod("Running", Some(MACHINE), false), BTreeSet::new());
}

/// No other event is needed: a quiet instance that was refused is judged by its last beat.
#[test]
fn an_instance_whose_address_is_free_again_is_published_by_the_next_decision() {
    let mut world = World::new();
    world.owned = Some(MACHINE.parse().expect("an address"));
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(0));
    assert!(world.commit(&mut index, at(100)));
    assert_eq!(world.one(&index, at(100)).state.as_str(), "Rejected");
    index.observe("shop", beat("vm-1", 2, 2), at(9_000));
    world.owned = None;
    assert_eq!(world.one(&index, at(10_000)).state.as_str(), "Ready");
}

#[test]
fn a_registration_that_asks_for_more_and_more_is_to_ask_for_all_again_so_that_the_rest_is_forgotten()
 {
    let mut dependents = ClusterCache::default().dependents;
    let key = Key::new("shop", "greeter");
    let at = |number: u32| IpAddr::from(std::net::Ipv4Addr::from(number));
    let asked = |addresses| Asked { addresses, nodes: BTreeSet::new() };
    dependents.note(&key, asked((0..5_000).map(at).collect()));
    for number in 0..4_096 {
        dependents.add(&key, asked(AddressSet::from_iter([at(10_000 + number)])));
    }
    // What is known adds nothing.
    dependents.add(&key, asked((0..5_000).map(at).collect()));
    assert!(!dependents.is_outdated(&key));
    dependents.add(&key, asked(AddressSet::from_iter([at(1_000_000)])));
    assert!(dependents.is_outdated(&key));
    dependents.note(&key, asked(AddressSet::from_iter([at(1)])));
    assert!(!dependents.is_outdated(&key));
}

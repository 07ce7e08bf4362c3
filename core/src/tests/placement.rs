//! The addresses of an instance, and which of them are refused (P5).

use super::*;
use crate::vocabulary::placement::Placement;

fn seen(beat: Heartbeat) -> Index {
    let mut index = index();
    index.observe("shop", beat, at(1000));
    index
}

fn spec(port: Value) -> Value {
    json!({
        "ttl": "30s", "interval": "10s", "ports": [port],
        "podSelector": { "matchLabels": { "app": "greeter" } },
    })
}

fn in_pod(world: World) -> Verdict {
    world.one(&seen(pod_beat("web-1", 1, 1)), at(2000))
}

fn outside(world: &World, addresses: &[&str]) -> Verdict {
    let mut beat = beat("vm-1", 1, 1);
    beat.content.addresses = addresses.iter().map(|&address| address.into()).collect();
    world.one(&seen(beat), at(2000))
}

fn ports(verdict: &Verdict) -> Vec<u16> {
    let placement = verdict.placement.as_ref().expect("a placement");
    placement.ports.ports().iter().map(|port| port.port).collect()
}

fn addresses(verdict: &Verdict) -> Vec<String> {
    let placement = verdict.placement.as_ref().expect("a placement");
    placement.addresses.iter().map(IpAddr::to_string).collect()
}

#[test]
fn everything_about_a_pod_instance_comes_from_its_pod_and_nothing_from_its_lease() {
    let mut lying = pod_beat("web-1", 1, 1);
    lying.content.addresses = vec!["192.0.2.66".into()];
    let world = World::new().pod("web-1", ready_pod("web-1", &["10.0.0.7"]));
    let verdict = world.one(&seen(lying), at(2000));
    assert_eq!((addresses(&verdict), ports(&verdict)), (vec!["10.0.0.7".to_owned()], vec![8080]));
    let Some(Placement { node_name, zone, hostname, pod, kubelet_ready, .. }) = verdict.placement
    else {
        panic!("no placement")
    };
    assert_eq!((node_name.as_deref(), zone.as_deref()), (Some("node-1"), Some("eu-1a")));
    assert_eq!((hostname, kubelet_ready), (None, true));
    let pod = pod.expect("its Pod");
    assert_eq!(
        (pod.namespace, pod.name, pod.uid),
        ("shop".into(), "web-1".into(), "web-1-uid".into())
    );
}

#[test]
fn a_named_port_is_looked_up_with_its_protocol_in_containers_and_sidecars() {
    let sidecar = |policy: Value| {
        let mut pod = ready_pod("web-1", &["10.0.0.7"]);
        pod["spec"]["initContainers"] = json!([{
            "name": "proxy", "restartPolicy": policy,
            "ports": [{ "name": "admin", "containerPort": 9901 }],
        }]);
        pod
    };
    for (target, protocol, policy, expected) in [
        ("web", "TCP", json!("Always"), Ok(8080)),
        ("web", "UDP", json!("Always"), Ok(5353)),
        ("admin", "TCP", json!("Always"), Ok(9901)),
        ("admin", "TCP", json!(null), Err("Pod web-1 has no TCP port named admin")),
        ("web", "SCTP", json!("Always"), Err("Pod web-1 has no SCTP port named web")),
    ] {
        let port = json!({ "name": "x", "port": 80, "targetPort": target, "protocol": protocol });
        let verdict = in_pod(World::with(spec(port)).pod("web-1", sidecar(policy)));
        match expected {
            Ok(port) => assert_eq!(ports(&verdict), [port]),
            Err(message) => {
                assert_eq!(line(&verdict), format!("Rejected PortUnresolved: {message}"));
            }
        }
    }
}

#[test]
fn a_port_that_cannot_be_resolved_is_left_out_while_another_can() {
    let mut spec = spec(json!({ "name": "http", "port": 80, "targetPort": "web" }));
    let admin = json!({ "name": "admin", "port": 81, "targetPort": "admin" });
    spec["ports"].as_array_mut().expect("ports").push(admin);
    let verdict = in_pod(World::with(spec).pod("web-1", ready_pod("web-1", &["10.0.0.7"])));
    assert_eq!(ports(&verdict), [8080]);
}

#[test]
fn a_host_name_is_published_only_in_the_service_that_the_pod_names() {
    for (subdomain, expected) in [("greeter", Some("web-0")), ("other", None), ("", None)] {
        let mut pod = ready_pod("web-1", &["10.0.0.7"]);
        pod["spec"]["hostname"] = json!("web-0");
        pod["spec"]["subdomain"] = json!(subdomain);
        let placement = in_pod(World::new().pod("web-1", pod)).placement.expect("a placement");
        assert_eq!(placement.hostname.as_deref(), expected, "{subdomain:?}");
    }
}

#[test]
fn only_addresses_of_the_services_families_are_published() {
    let with = |families: &[Family], ips: &[&str]| {
        let mut world = World::new().pod("web-1", ready_pod("web-1", ips));
        world.families = families.to_vec();
        in_pod(world)
    };
    let dual = ["fd00::7", "10.0.0.7"];
    assert_eq!(addresses(&with(&[Family::V4], &dual)), ["10.0.0.7"]);
    assert_eq!(addresses(&with(&[Family::V6], &dual)), ["fd00::7"]);
    assert_eq!(addresses(&with(&[Family::V6, Family::V4], &dual)), ["10.0.0.7", "fd00::7"]);
    assert_eq!(
        line(&with(&[Family::V6], &["10.0.0.7"])),
        "Rejected AddressFamilyMismatch: its addresses (10.0.0.7) are of no family that the \
         Service has (IPv6)"
    );
}

#[test]
fn a_pod_that_may_not_join_is_rejected_with_the_reason() {
    let pod = || ready_pod("web-1", &["10.0.0.7"]);
    assert_eq!(
        line(&in_pod(World::new())),
        "Rejected PodNotFound: there is no Pod web-1 in namespace shop"
    );
    let mut recreated = pod();
    recreated["metadata"]["uid"] = json!("another");
    assert_eq!(
        line(&in_pod(World::new().pod("web-1", recreated))),
        "Rejected PodReplaced: its Lease belongs to an earlier Pod web-1 (uid web-1-uid); delete \
         the Lease, so that the present Pod can create its own"
    );
    let mut stranger = pod();
    stranger["metadata"]["labels"] = json!({ "app": "cart" });
    assert_eq!(
        line(&in_pod(World::new().pod("web-1", stranger))),
        "Rejected PodNotSelected: the labels of Pod web-1 do not match spec.podSelector of greeter"
    );
    let closed = World::with(json!({ "ports": [{ "name": "http", "port": 80 }] }));
    assert_eq!(
        line(&in_pod(closed.pod("web-1", pod()))),
        "Rejected PodNotSelected: spec.podSelector of greeter is absent, so no Pod may join; \
         Pod web-1 wants to"
    );
    assert_eq!(
        line(&in_pod(World::new().pod("web-1", ready_pod("web-1", &[])))),
        "Waiting NoAddressYet: Pod web-1 has no address yet"
    );
    assert_eq!(
        line(&in_pod(World::new().pod("web-1", ready_pod("web-1", &["169.254.1.1"])))),
        "Rejected AddressRefused: 169.254.1.1 is a link-local address, which is never published; \
         name an address that other machines can reach"
    );
}

#[test]
fn an_empty_selector_admits_any_pod() {
    let spec = json!({ "ports": [{ "name": "http", "port": 80 }], "podSelector": {} });
    let verdict = in_pod(World::with(spec).pod("web-1", ready_pod("web-1", &["10.0.0.7"])));
    assert_eq!(line(&verdict), "Ready Beating: ");
}

#[test]
fn an_outside_instance_is_published_inside_the_allowed_ranges_only() {
    let world = World::new();
    assert_eq!(addresses(&outside(&world, &["192.0.2.9", "192.0.2.9"])), ["192.0.2.9"]);
    for (addresses, reason) in [
        (&["198.51.100.1"][..], "AddressRefused"),
        // One bad address gets the whole instance refused: publishing only some of the requested addresses would
        // be more surprising.
        (&["192.0.2.9", "198.51.100.1"], "AddressRefused"),
        (&["vm-1.example.com"], "AddressRefused"),
        (&["2001:db8::1"], "AddressFamilyMismatch"),
        (&[], "AddressMissing"),
    ] {
        let verdict = outside(&world, addresses);
        assert_eq!((verdict.state.as_str(), verdict.reason.as_str()), ("Rejected", reason));
        assert_eq!(verdict.placement, None);
    }
}

#[test]
fn what_belongs_to_the_cluster_is_refused_although_it_lies_in_the_range() {
    let mut world = World::new();
    world.owned = Some("192.0.2.9".parse().expect("an address"));
    assert_eq!(
        line(&outside(&world, &["192.0.2.9"])),
        "Rejected AddressRefused: 192.0.2.9 belongs to Pod shop/cart; an outside instance cannot \
         have it"
    );
}

#[test]
fn a_declaration_overrules_the_addresses_and_ports_of_the_lease() {
    let world = |port: Value| {
        World::with(json!({
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }, { "name": "tls", "port": 443 }],
            "instances": [{ "name": "vm-1", "addresses": ["192.0.2.5"], "zone": "eu-1b",
                            "ports": [{ "name": "http", "port": port }] }],
        }))
    };
    let verdict = outside(&world(json!(9001)), &["192.0.2.77"]);
    assert_eq!(
        (addresses(&verdict), ports(&verdict)),
        (vec!["192.0.2.5".to_owned()], vec![9001, 443])
    );
    assert_eq!(verdict.placement.and_then(|placement| placement.zone).as_deref(), Some("eu-1b"));
    assert_eq!(ports(&outside(&world(json!(0)), &[])), [443], "a port 0 is left out");
}

#[test]
fn a_named_target_port_cannot_be_resolved_without_a_pod() {
    let world = World::with(spec(json!({ "name": "http", "port": 80, "targetPort": "web" })));
    assert_eq!(
        line(&outside(&world, &["192.0.2.9"])),
        "Rejected PortUnresolved: port \"http\" has targetPort \"web\", a name that only Pods can \
         resolve; declare the instance with a number for that port"
    );
}

#[test]
fn an_unreadable_selector_keeps_published_pods_and_admits_no_other() {
    let world = || {
        World::with(json!({
            "ports": [{ "name": "http", "port": 80 }],
            "podSelector": { "matchExpressions": [{ "key": "app", "operator": "Is" }] },
        }))
        .pod("web-1", ready_pod("web-1", &["10.0.0.7"]))
    };
    assert_eq!(line(&in_pod(world().published("10.0.0.7"))), "Ready Beating: ");
    assert_eq!(
        line(&in_pod(world())),
        "Rejected PodNotSelected: spec.podSelector of greeter cannot be read, so Pod web-1 may \
         not join; correct it"
    );
}

//! Tests of the Endpoints object.

use k8s_openapi::api::core::v1::EndpointSubset;

use super::*;

fn http() -> PortSet {
    ports(&[("http", 8080)])
}

fn ips(subsets: &[EndpointSubset], ready: bool) -> BTreeSet<IpAddr> {
    subsets
        .iter()
        .flat_map(|subset| if ready { &subset.addresses } else { &subset.not_ready_addresses })
        .flatten()
        .map(|address| address.ip.parse().unwrap())
        .collect()
}

fn addresses(endpoints: &[Endpoint]) -> BTreeSet<IpAddr> {
    endpoints.iter().map(|endpoint| endpoint.address).collect()
}

fn over_capacity(server: &Server) -> Option<String> {
    let annotations = server.endpoints.clone().unwrap().metadata.annotations.unwrap_or_default();
    annotations.get("endpoints.kubernetes.io/over-capacity").cloned()
}

#[test]
fn ready_and_not_ready_addresses_are_listed_apart() {
    let world = World::new();
    let mut all = fleet(0..4, &http());
    not_ready(&mut all[1]);
    let server = world.published(&all);
    let subsets = server.subsets();
    assert_eq!(subsets.len(), 1);
    assert_eq!(ips(&subsets, false), addresses(&all[1..2]));
    assert_eq!(ips(&subsets, true).len(), 3);
    let address = &subsets[0].addresses.as_ref().unwrap()[0];
    assert_eq!(address.node_name.as_deref(), Some("node-1"));
    assert_eq!(address.target_ref.as_ref().unwrap().kind.as_deref(), Some("Pod"));
}

#[test]
fn an_update_that_is_left_out_is_wanted_by_the_next_plan() {
    let world = World::new();
    let all = fleet(0..3, &http());
    let mut server = world.published(&all);
    let mut plan = world.plan(&server, &all[1..]);
    assert!(plan.leave_endpoints_as_they_are());
    server.carry_out(&plan, &world.wanted(&all[1..]));
    assert_eq!(ips(&server.subsets(), true), addresses(&all), "left as it was");
    assert_eq!(lines(&world.plan(&server, &all[1..])), [["update endpoints greeter: −1"]]);
    assert!(!Plan::default().leave_endpoints_as_they_are());
    let mut first = world.plan(&Server::default(), &all);
    assert!(!first.leave_endpoints_as_they_are(), "what is not there is made");
}

#[test]
fn an_object_without_addresses_is_created_and_kept() {
    let world = World::new();
    let mut server = Server::default();
    let plan = world.publish(&mut server, &[]);
    assert_eq!(lines(&plan), [["create endpoints greeter"]]);
    assert_eq!(server.endpoints.clone().unwrap().subsets, None);
    world.publish(&mut server, &fleet(0..1, &http()));
    world.publish(&mut server, &[]);
    assert_eq!(server.endpoints.unwrap().subsets, None);
}

#[test]
fn a_listed_address_stays_listed_while_a_thousand_others_wait() {
    let world = World::new();
    let listed = fleet(5_000..6_000, &http());
    let mut server = world.published(&listed);
    assert_eq!(over_capacity(&server), None);

    // There are 1,001 endpoints. The new one has the lowest address, and is still left out.
    let mut all = [fleet(0..1, &http()), listed.clone()].concat();
    let plan = world.publish(&mut server, &all);
    assert_eq!(over_capacity(&server).as_deref(), Some("truncated"));
    assert_eq!(ips(&server.subsets(), true), addresses(&listed));
    assert_eq!(plan.to_string().matches("update endpoints greeter: metadata").count(), 1);

    // There are 2,500 endpoints, and a listed one is no longer ready. It stays listed.
    all.extend(fleet(1..1_500, &http()));
    not_ready(&mut all[500]);
    let turned = all[500].clone();
    world.publish(&mut server, &all);
    assert_eq!(ips(&server.subsets(), true).len(), 999);
    assert_eq!(ips(&server.subsets(), false), addresses(&[turned]));

    // A listed endpoint is removed. The new endpoint with the lowest address takes its place.
    let gone = all.remove(600);
    world.publish(&mut server, &all);
    let ready = ips(&server.subsets(), true);
    assert!(!ready.contains(&gone.address));
    assert!(ready.contains(&all[0].address));
    assert_eq!(ready.len(), 999);

    // All endpoints fit again.
    all.truncate(900);
    world.publish(&mut server, &all);
    assert_eq!(over_capacity(&server), None);
}

#[test]
fn of_2_500_newcomers_the_ready_ones_are_listed_first() {
    let world = World::new();
    let mut all = fleet(0..2_500, &http());
    for endpoint in &mut all[..2_000] {
        not_ready(endpoint);
    }
    let server = world.published(&all);
    assert_eq!(server.sizes().len(), 25);
    assert_eq!(ips(&server.subsets(), true), addresses(&all[2_000..]));
    assert_eq!(ips(&server.subsets(), false), addresses(&all[..500]));
}

#[test]
fn the_listed_stay_listed_when_their_ports_change() {
    let world = World::new();
    let mut all = fleet(0..2_500, &http());
    all.reverse();
    let mut server = world.published(&all[..1_000]);
    world.publish(&mut server, &all);
    let before = ips(&server.subsets(), true);
    assert_eq!(before, addresses(&all[..1_000]));
    for endpoint in &mut all {
        endpoint.ports = ports(&[("http", 9090)]);
    }
    world.publish(&mut server, &all);
    assert_eq!(ips(&server.subsets(), true), before);
}

#[test]
fn the_way_the_api_server_groups_addresses_is_no_reason_to_write() {
    let world = World::new();
    let all = [
        fleet(0..2, &ports(&[("grpc", 80)])),
        fleet(10..12, &ports(&[("grpc", 80), ("http", 81)])),
    ]
    .concat();
    let server = world.published(&all);
    let grpc = server
        .subsets()
        .into_iter()
        .find(|subset| ips(std::slice::from_ref(subset), true).len() == 4);
    assert!(grpc.is_some(), "the model regroups");
    assert!(world.plan(&server, &all).is_empty());
}

#[test]
fn two_instances_of_one_pod_and_address_never_disagree_about_it() {
    let world = World::new();
    let mut all =
        vec![endpoint("10.0.0.1", &ports(&[("a", 1)])), endpoint("10.0.0.1", &ports(&[("b", 2)]))];
    all[0].hostname = Some("one".to_owned());
    all[1].hostname = Some("other".to_owned());
    let server = world.published(&all);
    for subset in server.subsets() {
        assert_eq!(subset.addresses.unwrap()[0].hostname.as_deref(), Some("one"));
    }
}

#[test]
fn switched_off_ours_is_deleted_and_left_alone_it_is_not_touched() {
    let mut world = World::new();
    let all = fleet(0..2, &http());
    let mut server = world.published(&all);
    world.mode = EndpointsMode::LeaveAlone;
    world.publish(&mut server, &all[..1]);
    assert_eq!(ips(&server.subsets(), true).len(), 2);
    world.mode = EndpointsMode::Off;
    let plan = world.publish(&mut server, &all[..1]);
    assert_eq!(lines(&plan), [["delete endpoints greeter"]]);
    assert!(server.endpoints.is_none());
    assert!(world.plan(&server, &all[..1]).is_empty());
}

#[test]
fn an_edited_list_is_repaired() {
    let world = World::new();
    let all = fleet(0..3, &http());
    let mut server = world.published(&all);
    let mut endpoints = server.endpoints.clone().unwrap();
    let addresses = endpoints.subsets.as_mut().unwrap()[0].addresses.as_mut().unwrap();
    addresses[0].ip = "203.0.113.9".to_owned();
    addresses[1].node_name = None;
    server.store_endpoints(endpoints);
    let plan = world.publish(&mut server, &all);
    assert_eq!(lines(&plan), [["update endpoints greeter: +1 −1 ~1"]]);
}

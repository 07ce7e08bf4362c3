//! Tests of which slices are written, and how many.

use super::*;

fn http() -> PortSet {
    ports(&[("http", 8080)])
}

#[test]
fn a_first_endpoint_makes_one_slice_and_one_endpoints_object() {
    let world = World::new();
    let mut server = Server::default();
    let plan = world.publish(&mut server, &fleet(1..2, &http()));
    assert_eq!(lines(&plan), [["create slice greeter-*: +1", "create endpoints greeter"]]);

    let slice = server.the_slice();
    assert_eq!(slice.address_type, "IPv4");
    let port = &slice.ports.unwrap()[0];
    assert_eq!((port.name.as_deref(), port.port), (Some("http"), Some(8080)));
    assert_eq!(port.protocol.as_deref(), Some("TCP"));
    let endpoint = &slice.endpoints[0];
    assert_eq!(endpoint.addresses, ["10.0.0.1"]);
    assert_eq!(endpoint.node_name.as_deref(), Some("node-1"));
    assert_eq!(endpoint.zone.as_deref(), Some("eu-1a"));
    let conditions = endpoint.conditions.clone().unwrap();
    assert_eq!(
        (conditions.ready, conditions.serving, conditions.terminating),
        (Some(true), Some(true), Some(false))
    );
    let target = endpoint.target_ref.clone().unwrap();
    assert_eq!(target.kind.as_deref(), Some("Pod"));
    assert_eq!(target.namespace.as_deref(), Some("shop"));
    assert_eq!(target.name.as_deref(), Some("greeter-10-0-0-1"));
    assert_eq!(target.uid.as_deref(), Some("uid-of-10.0.0.1"));
}

#[test]
fn nothing_wanted_and_nothing_published_makes_no_slice() {
    let world = World { mode: EndpointsMode::LeaveAlone, ..World::new() };
    assert_eq!(world.plan(&Server::default(), &[]).to_string(), "nothing to write");
}

#[test]
fn the_last_endpoint_takes_its_slice_along() {
    let world = World::new();
    let mut server = world.published(&fleet(1..2, &http()));
    let name = server.the_slice().metadata.name.unwrap();
    let plan = world.publish(&mut server, &[]);
    assert_eq!(
        lines(&plan),
        [[format!("delete slice {name}"), "update endpoints greeter: −1".to_owned()]]
    );
}

#[test]
fn a_pure_prune_is_one_phase_and_touches_one_slice() {
    let world = World::new();
    let mut fleet = fleet(0..250, &http());
    let mut server = world.published(&fleet);
    assert_eq!(server.sizes(), [100, 100, 50]);
    fleet.remove(130);
    let plan = world.publish(&mut server, &fleet);
    assert_eq!(plan.phases.len(), 1);
    let texts: Vec<String> = plan.writes().map(|write| write.to_string()).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].starts_with("update slice greeter-") && texts[0].ends_with(": −1"));
    assert_eq!(texts[1], "update endpoints greeter: −1");
    assert_eq!(server.sizes(), [100, 99, 50]);
}

#[test]
fn from_250_to_90_the_survivors_stay_where_they_are() {
    let world = World::new();
    let fleet = fleet(0..250, &http());
    let mut server = world.published(&fleet);
    let before = server.clone();
    let survivors: Vec<Endpoint> =
        fleet.into_iter().enumerate().filter(|(n, _)| n % 100 < 36).map(|(_, e)| e).collect();
    let survivors = &survivors[..90];
    let plan = world.publish(&mut server, survivors);
    assert_eq!(plan.phases.len(), 1);
    assert_eq!(server.sizes(), [36, 36, 18], "never rebalanced");
    for (name, slice) in &server.slices {
        for endpoint in &slice.endpoints {
            assert!(before.slices[name].endpoints.contains(endpoint));
        }
    }
}

#[test]
fn a_newcomer_goes_into_the_fullest_slice_that_has_room() {
    let world = World { max: 10, ..World::new() };
    let mut all = fleet(0..30, &http());
    let mut server = world.published(&all);
    all.drain(22..30);
    all.drain(3..5);
    world.publish(&mut server, &all);
    assert_eq!(server.sizes(), [8, 10, 2]);
    all.extend(fleet(100..102, &http()));
    let plan = world.publish(&mut server, &all);
    assert_eq!(server.sizes(), [10, 10, 2]);
    assert_eq!(plan.writes().count(), 2);
}

#[test]
fn newcomers_go_where_something_is_written_anyway_the_fullest_first() {
    let world = World { max: 10, ..World::new() };
    let mut all = fleet(0..30, &http());
    let mut server = world.published(&all);
    all.remove(29);
    world.publish(&mut server, &all);
    // The first slice loses three endpoints, and the second one loses one. The third slice has room, but is written
    // only if the other two do not suffice.
    all.remove(15);
    all.drain(0..3);
    all.extend(fleet(100..102, &http()));
    let plan = world.publish(&mut server, &all);
    assert_eq!(server.sizes(), [8, 10, 9]);
    assert_eq!(plan.writes().count(), 3);
}

#[test]
fn newcomers_that_fit_into_no_slice_together_get_a_new_one() {
    let world = World { max: 10, ..World::new() };
    let mut all = fleet(0..27, &http());
    let mut server = world.published(&all);
    all.extend(fleet(100..104, &http()));
    world.publish(&mut server, &all);
    assert_eq!(server.sizes(), [10, 10, 7, 4]);
}

#[test]
fn what_is_left_over_from_a_full_slice_goes_where_there_is_room() {
    let world = World::new();
    let mut server = world.published(&fleet(0..40, &http()));
    let plan = world.publish(&mut server, &fleet(0..170, &http()));
    assert_eq!(server.sizes(), [70, 100]);
    assert_eq!(plan.writes().filter(|write| matches!(write, Write::CreateSlice(_))).count(), 1);
}

#[test]
fn a_slice_that_would_be_deleted_is_recycled_before_one_is_created() {
    let world = World { max: 10, ..World::new() };
    let old = fleet(0..20, &http());
    let mut server = world.published(&old);
    let new = fleet(100..110, &ports(&[("grpc", 9090)]));
    let plan = world.publish(&mut server, &new);
    let first = &lines(&plan)[0];
    assert_eq!(first[0], "update slice greeter-00000: +10 −10");
    assert_eq!(first[1], "delete slice greeter-00001");
    assert_eq!(plan.phases.len(), 1);
}

#[test]
fn two_port_sets_are_two_slices() {
    let world = World::new();
    let mut all = fleet(0..3, &http());
    all.extend(fleet(10..12, &ports(&[("http", 9090)])));
    let server = world.published(&all);
    assert_eq!(server.sizes(), [3, 2]);
}

#[test]
fn two_instances_on_one_address_are_published_with_their_own_ports() {
    let world = World::new();
    let mut both = vec![
        endpoint("192.0.2.7", &ports(&[("http", 9001)])),
        endpoint("192.0.2.7", &ports(&[("http", 9002)])),
    ];
    let mut server = world.published(&both);
    assert_eq!(server.sizes(), [1, 1]);
    let listed = |server: &Server| -> Vec<i32> {
        let subsets = server.subsets();
        let mut ports: Vec<i32> =
            subsets.iter().flat_map(|it| it.ports.iter().flatten()).map(|it| it.port).collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(listed(&server), [9001, 9002]);
    both.remove(0);
    world.publish(&mut server, &both);
    assert_eq!(server.the_slice().ports.unwrap()[0].port, Some(9002));
    assert_eq!(listed(&server), [9002]);
}

#[test]
fn each_family_has_slices_of_its_own_and_the_primary_one_the_endpoints() {
    let mut world = World::new();
    let all = [endpoint("10.0.0.1", &http()), endpoint("fd00::1", &http())];
    let mut server = world.published(&all);
    let types: Vec<_> = server.slices.values().map(|slice| slice.address_type.clone()).collect();
    assert_eq!(types, ["IPv4", "IPv6"]);
    let addresses = server.subsets()[0].addresses.clone().unwrap();
    assert_eq!(addresses.len(), 1);
    assert_eq!(addresses[0].ip, "10.0.0.1");

    world.service.families = vec![Family::V6];
    world.publish(&mut server, &all);
    assert_eq!(server.the_slice().address_type, "IPv6");
    assert_eq!(server.subsets()[0].addresses.clone().unwrap()[0].ip, "fd00::1");
}

#[test]
fn only_readiness_flips_and_one_slice_is_updated() {
    let world = World::new();
    let mut all = fleet(0..250, &http());
    let mut server = world.published(&all);
    not_ready(&mut all[120]);
    let plan = world.publish(&mut server, &all);
    assert_eq!(lines(&plan), [["update slice greeter-00001: ~1", "update endpoints greeter: ~1"]]);
    let slice = &server.slices["greeter-00001"];
    assert_eq!(slice.endpoints[20].conditions.clone().unwrap().ready, Some(false), "in its place");
}

#[test]
fn draining_endpoints_are_in_slices_only() {
    let world = World::new();
    let mut all = fleet(0..2, &http());
    let mut server = world.published(&all);
    all[0].conditions = DRAINING;
    all[0].in_endpoints = None;
    let plan = world.publish(&mut server, &all);
    assert_eq!(lines(&plan), [["update slice greeter-00000: ~1", "update endpoints greeter: −1"]]);
}

#[test]
fn an_endpoint_without_ports_is_published_too() {
    let world = World::new();
    let none = ports(&[]);
    let mut all = fleet(0..3, &none);
    let mut server = world.published(&all);
    all.remove(1);
    let plan = world.publish(&mut server, &all);
    assert_eq!(plan.writes().count(), 2);
}

#[test]
fn the_order_in_which_endpoints_come_is_no_reason_to_write() {
    let world = World::new();
    let mut all = fleet(0..250, &http());
    let server = world.published(&all);
    all.reverse();
    assert!(world.plan(&server, &all).is_empty());
}

#[test]
fn a_lower_limit_moves_no_instance_out_of_a_slice() {
    let mut world = World::new();
    let mut all = fleet(0..100, &http());
    let mut server = world.published(&all);
    world.max = 10;
    assert!(world.plan(&server, &all).is_empty());
    all.remove(0);
    all.extend(fleet(200..201, &http()));
    world.publish(&mut server, &all);
    assert_eq!(server.sizes(), [99, 1]);
}

#[test]
fn a_limit_out_of_range_is_brought_into_it() {
    for (max, sizes) in [(0, vec![1, 1]), (5000, vec![2])] {
        let world = World { max, ..World::new() };
        assert_eq!(world.published(&fleet(0..2, &http())).sizes(), sizes);
    }
}

#[test]
fn ten_thousand_endpoints_are_packed_and_pruned_like_ten() {
    let world = World::new();
    let mut all = fleet(0..10_000, &http());
    let mut server = world.published(&all);
    assert_eq!(server.sizes().len(), 100);
    all.remove(5_000);
    let plan = world.plan(&server, &all);
    assert_eq!(plan.writes().filter(|write| write.slice_name().is_some()).count(), 1);
    world.publish(&mut server, &all);
}

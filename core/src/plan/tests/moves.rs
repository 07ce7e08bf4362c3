//! Tests of endpoints that move from one slice to another.

use super::*;

fn grpc() -> PortSet {
    ports(&[("grpc", 80)])
}

fn grpc_and_http() -> PortSet {
    ports(&[("grpc", 80), ("http", 81)])
}

fn with_ports(mut endpoints: Vec<Endpoint>, ports: &PortSet) -> Vec<Endpoint> {
    for endpoint in &mut endpoints {
        endpoint.ports = ports.clone();
    }
    endpoints
}

#[test]
fn a_new_target_port_for_all_rewrites_each_slice_once_and_creates_none() {
    let world = World::new();
    let all = fleet(0..250, &ports(&[("http", 8080)]));
    let mut server = world.published(&all);
    let all = with_ports(all, &ports(&[("http", 9090)]));
    let plan = world.publish(&mut server, &all);
    assert_eq!(
        lines(&plan),
        [[
            "update slice greeter-00000: ~100",
            "update slice greeter-00001: ~100",
            "update slice greeter-00002: ~50",
            "update endpoints greeter: ~250",
        ]]
    );
}

#[test]
fn an_endpoint_that_gains_a_port_is_added_before_it_is_removed() {
    let world = World::new();
    let mut all = fleet(0..3, &grpc());
    let mut server = world.published(&all);
    all[1].ports = grpc_and_http();
    let plan = world.publish(&mut server, &all);
    assert_eq!(
        lines(&plan),
        [
            vec!["create slice greeter-*: +1", "update endpoints greeter: ~1"],
            vec!["update slice greeter-00000: −1"],
        ]
    );
}

#[test]
fn an_instance_with_a_new_port_is_added_before_it_is_removed_where_others_keep_theirs() {
    let world = World::new();
    let mut all = fleet(0..3, &ports(&[("http", 8080)]));
    let mut server = world.published(&all);
    all[1].ports = ports(&[("http", 9090)]);
    all[2].ports = ports(&[("http", 9090)]);
    let plan = world.publish(&mut server, &all);
    assert_eq!(
        lines(&plan),
        [
            vec!["create slice greeter-*: +2", "update endpoints greeter: ~2"],
            vec!["update slice greeter-00000: −2"],
        ]
    );
}

#[test]
fn removals_do_not_wait_for_moves() {
    let world = World::new();
    let mut all = fleet(0..3, &grpc());
    let mut server = world.published(&all);
    all[1].ports = grpc_and_http();
    all.remove(0);
    let plan = world.publish(&mut server, &all);
    assert_eq!(
        lines(&plan),
        [
            vec![
                "update slice greeter-00000: −1",
                "create slice greeter-*: +1",
                "update endpoints greeter: −1 ~1",
            ],
            vec!["update slice greeter-00000: −1"],
        ]
    );
}

#[test]
fn the_dead_in_a_slice_that_is_to_be_rewritten_do_not_wait_either() {
    let world = World::new();
    let mut all = fleet(0..4, &grpc());
    let mut server = world.published(&all);
    // All ports change. Two endpoints stay in the rewritten slice, one moves to a new slice, and one is dead.
    all[0].ports = grpc_and_http();
    all[1].ports = grpc_and_http();
    all[2].ports = ports(&[("grpc", 80), ("admin", 82)]);
    all.remove(3);
    let plan = world.publish(&mut server, &all);
    assert_eq!(
        lines(&plan),
        [
            vec![
                "update slice greeter-00000: −1",
                "create slice greeter-*: +1",
                "update endpoints greeter: −1 ~3",
            ],
            vec!["update slice greeter-00000: −1 ~2"],
        ]
    );
}

#[test]
fn a_slice_that_only_loses_moving_instances_is_written_once() {
    let world = World::new();
    let all = fleet(0..3, &grpc());
    let mut all = [all, fleet(10..12, &grpc_and_http())].concat();
    let mut server = world.published(&all);
    all[2].ports = grpc_and_http();
    let plan = world.publish(&mut server, &all);
    assert_eq!(
        lines(&plan),
        [
            vec!["update slice greeter-00001: +1", "update endpoints greeter: ~1"],
            vec!["update slice greeter-00000: −1"],
        ]
    );
}

#[test]
fn a_slice_that_all_instances_move_out_of_is_deleted_last() {
    let world = World { max: 2, ..World::new() };
    let mut all = fleet(0..3, &grpc());
    let mut server = world.published(&all);
    all[2].ports = grpc_and_http();
    let plan = world.publish(&mut server, &all);
    assert_eq!(
        lines(&plan),
        [
            vec!["create slice greeter-*: +1", "update endpoints greeter: ~1"],
            vec!["delete slice greeter-00001"],
        ]
    );
}

#[test]
fn another_application_protocol_is_no_other_endpoint() {
    let world = World::new();
    let all = fleet(0..3, &grpc());
    let mut server = world.published(&all);
    let h2c = PortSet::new(vec![EndpointPort {
        app_protocol: Some("kubernetes.io/h2c".to_owned()),
        ..port("grpc", 80)
    }]);
    let plan = world.publish(&mut server, &with_ports(all, &h2c));
    assert_eq!(plan.phases.len(), 1);
    assert_eq!(plan.writes().count(), 2);
}

#[test]
fn a_slice_goes_to_the_group_in_which_it_keeps_most_published() {
    let world = World::new();
    let mut all = fleet(0..5, &grpc());
    let mut server = world.published(&all);
    // Three endpoints get entirely different ports, and two keep one port. The two stay in the slice. The three are in
    // another slice before this one gives them up.
    for endpoint in &mut all[..3] {
        endpoint.ports = ports(&[("grpc", 9090)]);
    }
    for endpoint in &mut all[3..] {
        endpoint.ports = grpc_and_http();
    }
    let plan = world.publish(&mut server, &all);
    assert_eq!(
        lines(&plan),
        [
            vec!["create slice greeter-*: +3", "update endpoints greeter: ~5"],
            vec!["update slice greeter-00000: −3 ~2"],
        ]
    );
}

#[test]
fn a_copy_that_consumers_ignore_keeps_no_instance_published() {
    let world = World::new();
    let mut all = fleet(0..1, &grpc());
    let mut server = world.published(&all);
    let mut copy = server.the_slice();
    copy.metadata.name = Some("unlabelled".to_owned());
    copy.metadata.labels = None;
    copy.ports = Some(super::super::read::write_ports(&grpc_and_http()));
    server.store_slice(copy);
    all[0].ports = grpc_and_http();
    all.extend(fleet(1..2, &grpc()));
    let plan = world.plan(&server, &all);
    // If consumers saw the copy, the first slice could remove its own endpoint at once.
    assert_eq!(plan.phases[1].len(), 1, "{plan}");
    world.publish(&mut server, &all);
}

#[test]
fn a_moving_instance_takes_room_until_the_second_phase() {
    let world = World { max: 2, ..World::new() };
    let mut all = fleet(0..2, &grpc());
    let mut server = world.published(&all);
    all[0].ports = grpc_and_http();
    all.extend(fleet(2..3, &grpc()));
    let plan = world.publish(&mut server, &all);
    assert_eq!(
        lines(&plan),
        [
            vec![
                "create slice greeter-*: +1",
                "create slice greeter-*: +1",
                "update endpoints greeter: +1 ~1",
            ],
            vec!["update slice greeter-00000: −1"],
        ]
    );
}

#[test]
fn slices_that_would_wait_for_each_other_are_not_rewritten() {
    let world = World::new();
    let shared = |port: &[(&str, u16)]| endpoint("10.0.0.1", &ports(port));
    let at = |number: usize, port: &[(&str, u16)]| fleet(number..number + 1, &ports(port));
    // The address is in two slices. Its port x is to move from the first slice to the slice that the second one would
    // be rewritten for. But each of the two slices first has to give up another endpoint.
    let before = [
        vec![shared(&[("x", 1)]), shared(&[("y", 2)])],
        at(2, &[("x", 1)]),
        at(3, &[("x", 1)]),
        at(4, &[("y", 2)]),
    ]
    .concat();
    let mut server = world.published(&before);
    let after = [
        vec![shared(&[("x", 1), ("y", 2), ("z", 3)])],
        at(2, &[("x", 1), ("v", 4)]),
        at(3, &[("x", 1), ("v", 4)]),
        at(4, &[("y", 2), ("w", 5)]),
    ]
    .concat();
    let plan = world.publish(&mut server, &after);
    assert_eq!(
        lines(&plan),
        [
            vec![
                "create slice greeter-*: +1",
                "create slice greeter-*: +1",
                "update endpoints greeter: ~4",
            ],
            vec!["update slice greeter-00000: −1 ~2", "delete slice greeter-00001"],
        ]
    );
}

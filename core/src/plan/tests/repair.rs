//! Tests of repairs of our slices, after an edit by a user or a crash between two writes.

use k8s_openapi::api::discovery::v1::EndpointConditions;

use super::*;

fn http() -> PortSet {
    ports(&[("http", 8080)])
}

/// Publishes three endpoints, applies an edit to the slice, and returns the repair.
fn repaired(edit: impl FnOnce(&mut EndpointSlice)) -> (Server, Plan) {
    let world = World::new();
    let all = fleet(0..3, &http());
    let mut server = world.published(&all);
    let mut slice = server.the_slice();
    edit(&mut slice);
    server.store_slice(slice);
    let plan = world.publish(&mut server, &all);
    (server, plan)
}

#[test]
fn a_foreign_endpoint_is_removed() {
    let (_, plan) = repaired(|slice| {
        let mut foreign = slice.endpoints[0].clone();
        foreign.addresses = vec!["203.0.113.9".to_owned()];
        slice.endpoints.push(foreign);
    });
    assert_eq!(lines(&plan), [["update slice greeter-00000: −1"]]);
}

#[test]
fn nil_conditions_are_made_explicit() {
    let cleared = [
        None,
        Some(EndpointConditions { ready: None, serving: Some(true), terminating: Some(false) }),
        Some(EndpointConditions { ready: Some(true), serving: None, terminating: None }),
    ];
    for conditions in cleared {
        let (server, plan) = repaired(|slice| slice.endpoints[1].conditions = conditions);
        assert_eq!(lines(&plan), [["update slice greeter-00000: ~1"]]);
        let conditions = server.the_slice().endpoints[1].conditions.clone().unwrap();
        assert_eq!(conditions.ready, Some(true));
        assert_eq!(conditions.serving, Some(true));
        assert_eq!(conditions.terminating, Some(false));
    }
}

#[test]
fn every_field_of_an_endpoint_is_repaired() {
    type Edit = fn(&mut k8s_openapi::api::discovery::v1::Endpoint);
    let edits: [Edit; 6] = [
        |endpoint| endpoint.node_name = None,
        |endpoint| endpoint.zone = Some("elsewhere".to_owned()),
        |endpoint| endpoint.hostname = Some("stranger".to_owned()),
        |endpoint| endpoint.target_ref = None,
        |endpoint| endpoint.hints = Some(Default::default()),
        |endpoint| {
            endpoint.deprecated_topology = Some([("a".to_owned(), "b".to_owned())].into());
        },
    ];
    for edit in edits {
        let (_, plan) = repaired(|slice| edit(&mut slice.endpoints[2]));
        assert_eq!(lines(&plan), [["update slice greeter-00000: ~1"]]);
    }
}

#[test]
fn several_addresses_in_one_endpoint_are_taken_apart() {
    let (_, plan) = repaired(|slice| {
        let second = slice.endpoints.remove(1).addresses.remove(0);
        slice.endpoints[0].addresses.push(second);
    });
    // The wrong endpoint publishes both addresses, so it stays until the right endpoints are published.
    assert_eq!(
        lines(&plan),
        [["update slice greeter-00000: +2"], ["update slice greeter-00000: −1"]]
    );
}

#[test]
fn addresses_that_are_none_are_removed() {
    let (_, plan) = repaired(|slice| {
        slice.endpoints[0].addresses = vec!["nonsense".to_owned()];
        slice.endpoints[1].addresses.clear();
    });
    assert_eq!(lines(&plan), [["update slice greeter-00000: +2 −2"]]);
}

#[test]
fn ports_without_a_number_or_out_of_range_are_replaced_in_place() {
    for number in [None, Some(0), Some(65_536), Some(-1)] {
        let (_, plan) = repaired(|slice| slice.ports.as_mut().unwrap()[0].port = number);
        assert_eq!(lines(&plan), [["update slice greeter-00000: ~3"]]);
    }
    let (_, plan) = repaired(|slice| slice.ports = None);
    assert_eq!(lines(&plan), [["update slice greeter-00000: ~3"]]);
}

#[test]
fn unnamed_defaults_of_ports_are_no_difference() {
    let world = World::new();
    let all = fleet(0..2, &ports(&[("", 8080)]));
    let mut server = world.published(&all);
    let mut slice = server.the_slice();
    let port = &mut slice.ports.as_mut().unwrap()[0];
    (port.name, port.protocol) = (None, None);
    server.store_slice(slice);
    assert!(world.plan(&server, &all).is_empty());
}

#[test]
fn a_slice_of_names_cannot_be_repaired_and_goes() {
    let world = World::new();
    let all = fleet(0..3, &http());
    let mut server = world.published(&all);
    let mut slice = server.the_slice();
    slice.metadata.name = Some("greeter-names".to_owned());
    slice.address_type = "FQDN".to_owned();
    slice.endpoints[0].addresses = vec!["example.com".to_owned()];
    server.store_slice(slice);
    let plan = world.publish(&mut server, &all);
    assert_eq!(lines(&plan), [["delete slice greeter-names"]]);
}

#[test]
fn duplicates_across_slices_are_removed_and_one_copy_stays() {
    let world = World::new();
    let all = fleet(0..3, &http());
    let mut server = world.published(&all);
    let mut copy = server.the_slice();
    copy.metadata.name = Some("greeter-copy".to_owned());
    copy.endpoints.truncate(2);
    server.store_slice(copy);
    let plan = world.publish(&mut server, &all);
    assert_eq!(lines(&plan), [["delete slice greeter-copy"]]);
    assert_eq!(server.sizes(), [3]);
}

#[test]
fn a_duplicate_goes_at_once_since_the_other_copy_stays_whatever_happens() {
    let world = World::new();
    let all = fleet(0..3, &http());
    let mut server = world.published(&all);
    let mut copy = server.the_slice();
    copy.metadata.name = Some("greeter-copy".to_owned());
    server.store_slice(copy);
    let plan = world.publish(&mut server, &all[..2]);
    assert_eq!(
        lines(&plan),
        [[
            "update slice greeter-00000: −1",
            "delete slice greeter-copy",
            "update endpoints greeter: −1",
        ]]
    );
}

#[test]
fn duplicates_inside_a_slice_are_removed() {
    let (server, plan) = repaired(|slice| slice.endpoints.push(slice.endpoints[0].clone()));
    assert_eq!(lines(&plan), [["update slice greeter-00000: −1"]]);
    assert_eq!(server.sizes(), [3]);
}

#[test]
fn of_two_copies_the_one_that_consumers_see_stays() {
    let world = World::new();
    let all = fleet(0..3, &http());
    let mut server = world.published(&all);
    let mut copy = server.the_slice();
    copy.metadata.name = Some("a-copy-first-in-order".to_owned());
    copy.metadata.labels.as_mut().unwrap().remove(marks::SERVICE_NAME_LABEL);
    server.store_slice(copy);
    let plan = world.publish(&mut server, &all);
    assert_eq!(lines(&plan), [["delete slice a-copy-first-in-order"]]);
}

#[test]
fn a_slice_that_is_being_deleted_publishes_no_instance() {
    let world = World::new();
    let all = fleet(0..3, &http());
    let mut server = world.published(&all);
    let mut slice = server.the_slice();
    slice.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
    server.store_slice(slice);
    let plan = world.publish(&mut server, &all);
    assert_eq!(lines(&plan), [["create slice greeter-*: +3"]]);
}

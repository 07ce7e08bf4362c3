//! A cordon applies to a name and to an address until it is lifted, independently of the Lease.

use beatkeeper_api::CordonedInstance;
use jiff::Timestamp;

use super::*;
use crate::decide::cordons::Cordons;

/// A Lease of vm-1 at 192.0.2.1.
fn lease_of(instance: &str, uid: &str, version: u64, cordoned: Option<&str>) -> Heartbeat {
    let mut beat = beat(instance, 1, version);
    beat.token.uid = uid.into();
    beat.content.cordoned = cordoned.map(str::to_owned);
    beat
}

fn lease_key(instance: &str) -> Key {
    Key::new("shop", format!("greeter.{instance}"))
}

/// An index that has seen that vm-1 is cordoned.
fn cordoned() -> (World, Index) {
    let mut index = index();
    index.observe("shop", lease_of("vm-1", "uid-1", 1, Some("bad disk")), at(1000));
    (World::new(), index)
}

/// Writes the cordons into the status, and reads them back.
fn write_down(world: &mut World, index: &mut Index) {
    let cordons = Cordons::stand(&world.registration, index);
    world.registration.cordoned =
        cordons.remember(&world.registration.cordoned, Timestamp::UNIX_EPOCH);
}

fn states(world: &mut World, index: &mut Index, now: u64) -> Vec<String> {
    world.cordons = Cordons::stand(&world.registration, index).held;
    let verdicts = world.decide(index, at(now));
    verdicts.iter().map(|it| format!("{} {}", it.instance, it.state.as_str())).collect()
}

fn delete(index: &mut Index, instance: &str, version: u64) {
    index.observe_deleted(&lease_key(instance), Version(version));
    index.confirm(&lease_key(instance), LiveRead::Absent, at(1500), at(1500));
}

#[test]
fn a_lease_that_is_deleted_and_made_anew_is_cordoned_and_is_to_carry_that_again() {
    let (mut world, mut index) = cordoned();
    assert_eq!(states(&mut world, &mut index, 1000), ["vm-1 Cordoned"]);
    delete(&mut index, "vm-1", 2);
    assert_eq!(states(&mut world, &mut index, 1500), [""; 0]);
    index.observe("shop", lease_of("vm-1", "uid-2", 3, None), at(2000));
    assert_eq!(states(&mut world, &mut index, 2000), ["vm-1 Cordoned"]);
    let unmarked = Cordons::stand(&world.registration, &mut index).unmarked;
    assert_eq!((unmarked.len(), &*unmarked[0].token.uid), (1, "uid-2"));
    assert_eq!(unmarked[0].reason, "bad disk");
}

#[test]
fn it_holds_however_soon_the_lease_is_gone_and_back_and_whatever_it_says_meanwhile() {
    let (mut world, mut index) = cordoned();
    // No decision was made before the Lease was made again. The new Lease names another address.
    let mut remade = lease_of("vm-1", "uid-2", 3, None);
    remade.content.addresses = vec!["192.0.2.9".into()];
    index.observe("shop", remade, at(1001));
    index.observe("shop", lease_of("vm-7", "uid-7", 4, None), at(1001));
    assert_eq!(states(&mut world, &mut index, 1001), ["vm-1 Cordoned", "vm-7 Cordoned"]);
}

#[test]
fn another_name_at_the_address_stays_out_as_well_and_another_address_does_not() {
    let (mut world, mut index) = cordoned();
    index.observe("shop", lease_of("other", "uid-7", 2, None), at(1000));
    let mut elsewhere = lease_of("vm-2", "uid-8", 3, None);
    elsewhere.content.addresses = vec!["192.0.2.2".into()];
    index.observe("shop", elsewhere, at(1000));
    for _ in 0..2 {
        let states = states(&mut world, &mut index, 1000);
        assert_eq!(states[..1], ["other Cordoned"]);
        assert_eq!(states[states.len() - 1], "vm-2 Ready");
        delete(&mut index, "vm-1", 2);
    }
    let verdict = world.decide(&index, at(1000)).remove(0);
    assert_eq!(
        line(&verdict),
        "Cordoned Cordoned: its address 192.0.2.1 is that of vm-1, taken out by an operator: bad disk"
    );
}

#[test]
fn an_instance_that_is_declared_on_another_port_of_the_address_stays() {
    let mut index = index();
    let mut world = World::with(json!({
        "ttl": "30s", "interval": "10s",
        "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
        "instances": [
            { "name": "a", "addresses": ["192.0.2.1"], "ports": [{ "name": "http", "port": 8081 }] },
            { "name": "b", "addresses": ["192.0.2.1"], "ports": [{ "name": "http", "port": 8082 }] },
        ],
    }));
    index.observe("shop", lease_of("a", "uid-1", 1, Some("")), at(1000));
    index.observe("shop", lease_of("b", "uid-2", 2, None), at(1000));
    assert_eq!(states(&mut world, &mut index, 1000), ["a Cordoned", "b Ready"]);
    delete(&mut index, "a", 3);
    assert_eq!(states(&mut world, &mut index, 1000), ["a Cordoned", "b Ready"], "declared");
    let mut thief = lease_of("c", "uid-3", 4, None);
    thief.content.addresses = vec!["192.0.2.1".into()];
    index.observe("shop", thief, at(1000));
    let shared = "its port is neither's";
    assert_eq!(states(&mut world, &mut index, 1000)[2], "c Ready", "{shared}");
}

#[test]
fn it_outlives_the_operator_and_ends_where_the_annotation_was_removed_meanwhile() {
    let (mut world, mut seen) = cordoned();
    write_down(&mut world, &mut seen);
    let [entry] = &*world.registration.cordoned else { panic!("one is remembered") };
    assert_eq!((&*entry.name, &*entry.reason, &*entry.lease_uid), ("vm-1", "bad disk", "uid-1"));
    assert_eq!(entry.addresses, ["192.0.2.1"]);

    let mut gone = index();
    gone.observe("shop", lease_of("vm-7", "uid-7", 5, None), at(0));
    assert_eq!(states(&mut world, &mut gone, 0), ["vm-7 Cordoned"], "its Lease is gone");
    let mut remade = inherited(&[lease_of("vm-1", "uid-2", 5, None)]);
    assert_eq!(states(&mut world, &mut remade, 0), ["vm-1 Cordoned"], "it was made anew");
    let mut lifted = inherited(&[lease_of("vm-1", "uid-1", 5, None)]);
    assert_eq!(states(&mut world, &mut lifted, 0), ["vm-1 Waiting"]);
    write_down(&mut world, &mut lifted);
    assert_eq!(world.registration.cordoned, []);
}

#[test]
fn removing_the_annotation_lifts_the_cordon_for_good_even_if_the_lease_goes_at_once() {
    let (mut world, mut index) = cordoned();
    write_down(&mut world, &mut index);
    index.observe("shop", lease_of("vm-1", "uid-1", 2, None), at(1000));
    delete(&mut index, "vm-1", 3);
    index.observe("shop", lease_of("vm-1", "uid-2", 4, None), at(2000));
    assert_eq!(states(&mut world, &mut index, 2000), ["vm-1 Ready"]);
    write_down(&mut world, &mut index);
    assert_eq!(world.registration.cordoned, []);
}

#[test]
fn a_lease_that_was_marked_again_is_lifted_like_any_other() {
    let (mut world, mut index) = cordoned();
    write_down(&mut world, &mut index);
    index.observe("shop", lease_of("vm-1", "uid-2", 2, None), at(1000));
    let unmarked = Cordons::stand(&world.registration, &mut index).unmarked;
    index.cordon_is_written(&key("greeter"), &unmarked[0]);
    // The watch may deliver both changes before a decision is made.
    index.observe("shop", lease_of("vm-1", "uid-2", 3, Some("bad disk")), at(1000));
    index.observe("shop", lease_of("vm-1", "uid-2", 4, None), at(1000));
    assert_eq!(states(&mut world, &mut index, 1000), ["vm-1 Ready"]);
}

#[test]
fn a_cordon_whose_lease_is_gone_for_good_is_lifted_by_an_annotation_of_the_registration() {
    for names in ["vm-1", "vm-9, vm-1", "*"] {
        let (mut world, mut index) = cordoned();
        write_down(&mut world, &mut index);
        world.registration.uncordon = names.split(", ").map(str::to_owned).collect();
        assert_eq!(states(&mut world, &mut index, 1000), ["vm-1 Cordoned"], "its Lease says so");
        delete(&mut index, "vm-1", 2);
        write_down(&mut world, &mut index);
        assert_eq!(world.registration.cordoned, [], "{names}");
        world.registration.uncordon.clear();
        index.observe("shop", lease_of("vm-1", "uid-2", 3, None), at(2000));
        assert_eq!(states(&mut world, &mut index, 2000), ["vm-1 Ready"]);
    }
}

#[test]
fn a_pod_is_cordoned_by_its_name_and_not_by_an_address_that_another_pod_gets() {
    let world = World::new().pod("db-0", ready_pod("db-0", &["10.0.0.1"]));
    let mut world = world.pod("db-1", ready_pod("db-1", &["10.0.0.1"]));
    let mut index = index();
    let mut first = pod_beat("db-0", 1, 1);
    first.content.cordoned = Some("bad disk".to_owned());
    index.observe("shop", first, at(0));
    let mut other_name = pod_beat("db-0", 1, 2);
    other_name.lease = "greeter.alias".to_owned();
    other_name.content.holder = Some("alias".to_owned());
    index.observe("shop", other_name, at(0));
    index.observe("shop", pod_beat("db-1", 1, 3), at(0));
    let expected = ["alias Cordoned", "db-0 Cordoned", "db-1 Ready"];
    assert_eq!(states(&mut world, &mut index, 0), expected);
}

#[test]
fn a_registration_that_is_made_anew_has_the_cordons_that_leases_carry() {
    let (mut world, mut index) = cordoned();
    index.observe("shop", lease_of("vm-2", "uid-2", 2, Some("old")), at(1000));
    delete(&mut index, "vm-2", 3);
    index.forget_cordons(&key("greeter"));
    let held = Cordons::stand(&world.registration, &mut index).held;
    assert_eq!(held.iter().map(|it| &*it.entry.name).collect::<Vec<_>>(), ["vm-1"]);
    assert_eq!(states(&mut world, &mut index, 1000), ["vm-1 Cordoned"]);
}

#[test]
fn of_registrations_that_do_not_exist_no_cordon_outlasts_its_lease() {
    let (mut world, mut index) = cordoned();
    for (version, registration) in (10..).zip(["r-1", "r-2", "r-3"]) {
        let mut beat = lease_of("vm-2", "uid-2", version, Some("old"));
        beat.registration = Some(registration.to_owned());
        index.observe("shop", beat, at(1000));
    }
    let exists = |registration: &Key| *registration == key("greeter");
    assert_eq!(index.cordons().registrations().count(), 4);
    index.forget_cordons_but(exists);
    assert_eq!(index.cordons().registrations().count(), 2, "one of them a Lease carries");
    delete(&mut index, "vm-2", 20);
    index.forget_cordons_but(exists);
    assert_eq!(index.cordons().registrations().collect::<Vec<_>>(), [&key("greeter")]);
    assert_eq!(states(&mut world, &mut index, 1000), ["vm-1 Cordoned"]);
}

#[test]
fn of_very_many_cordons_a_bounded_number_is_remembered_and_those_of_pods_that_are_gone_make_room() {
    let (mut world, mut index) = cordoned();
    for n in 0..1000 {
        let name = format!("pod-{n}");
        let mut beat = pod_beat(&name, 1, 10 + n);
        beat.content.cordoned = Some(String::new());
        index.observe("shop", beat, at(1000));
        delete(&mut index, &name, 2000 + n);
    }
    write_down(&mut world, &mut index);
    assert_eq!(world.registration.cordoned.len(), 200);
    assert!(world.registration.cordoned.iter().any(|entry| entry.name == "vm-1"));
}

#[test]
fn what_a_status_remembers_keeps_its_time_and_loses_only_what_was_lifted() {
    let (world, mut index) = cordoned();
    let since = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
    let entry = |name: &str| CordonedInstance {
        name: name.to_owned(),
        lease_uid: "uid-1".to_owned(),
        since: since.clone(),
        ..CordonedInstance::default()
    };
    // The status that is written may contain more cordons than the status that the decision used.
    let cordons = Cordons::stand(&world.registration, &mut index);
    let later = Timestamp::from_second(100).expect("in range");
    let next = cordons.remember(&[entry("vm-1"), entry("vm-5")], later);
    assert_eq!(next.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["vm-1", "vm-5"]);
    assert!(next.iter().all(|it| it.since == since));
    assert_eq!(next[0].reason, "bad disk");
}

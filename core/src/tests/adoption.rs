//! Adopted instances stay published until their first beat. Until then silence is no sign of death.

use beatkeeper_api::{AdoptedInstance, InstancePort, InstanceState};

use super::*;
use crate::{
    adoption::{adopted::Adoption, verdicts::weaned},
    objects::{consent::Consent, published_addresses::PublishedAddresses},
    plan::endpoint_conflicts::endpoints,
};

/// An instance at 192.0.2.N with this port, adopted from the Endpoints.
fn adopted(name: &str, address: &str, port: i32) -> Adopted {
    let entry = AdoptedInstance {
        name: name.to_owned(),
        address: address.to_owned(),
        from: "Endpoints greeter".to_owned(),
        ports: vec![InstancePort { name: "http".to_owned(), port }],
        ..AdoptedInstance::default()
    };
    Adopted::read(&entry).expect("an address")
}

fn world(adopted: Vec<Adopted>) -> World {
    World { adopted, ..World::new() }
}

fn only_one() -> World {
    world(vec![adopted("adopted/192.0.2.1", "192.0.2.1", 9001)])
}

/// The same world, with the port that a beat publishes.
fn at_the_same_port() -> World {
    world(vec![adopted("adopted/192.0.2.1", "192.0.2.1", 8080)])
}

fn lines(world: &World, index: &Index, millis: u64) -> Vec<String> {
    let told = |verdict: &Verdict| {
        let reason = verdict.reason.as_str();
        format!("{} {} {reason}", verdict.instance, verdict.state.as_str())
    };
    world.decide(index, at(millis)).iter().map(told).collect()
}

fn at_port(mut beat: Heartbeat, address: &str) -> Heartbeat {
    beat.content.addresses = vec![address.into()];
    beat
}

fn token_of(beat: &Heartbeat) -> String {
    format!("{}@{}", beat.token.uid, beat.token.renewed.expect("a beat"))
}

#[test]
fn an_adopted_instance_is_ready_as_it_was_however_long_it_is_silent() {
    let verdicts = only_one().decide(&index(), at(10_000_000));
    assert_eq!(
        verdicts.iter().map(line).collect::<Vec<_>>(),
        ["Ready Adopted: taken over from Endpoints greeter; stays until it beats for the first \
          time, or is removed from annotation beatkeeper.dev/adopt"]
    );
    assert_eq!(verdicts[0].requeue_at, None);
    let published = endpoints(&verdicts, false);
    assert_eq!(published[0].address.to_string(), "192.0.2.1");
    assert_eq!(published[0].ports.ports()[0].port, 9001);
}

#[test]
fn one_that_was_not_ready_stays_not_ready() {
    let mut world = only_one();
    world.adopted[0].entry.not_ready = true;
    assert_eq!(lines(&world, &index(), 0), ["adopted/192.0.2.1 NotReady Adopted"]);
}

#[test]
fn the_first_beat_ends_it_for_good() {
    let world = at_the_same_port();
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(0));
    assert_eq!(lines(&world, &index, 0), ["vm-1 Ready Beating"]);
    let verdicts = world.decide(&index, at(0));
    assert_eq!(weaned(&world.adopted, &verdicts), [world.adopted[0].entry.clone()]);
    // After its first beat the instance expires as any other instance does.
    let silent = LiveRead::Found(beat("vm-1", 1, 1));
    index.confirm(&Key::new("shop", "greeter.vm-1"), silent, at(40_000), at(40_000));
    assert_eq!(lines(&world, &index, 40_000), ["vm-1 Expired TTLPassed"]);
}

#[test]
fn a_first_beat_with_another_port_ends_it_as_soon_as_that_port_is_published() {
    let mut world = only_one();
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(0));
    assert_eq!(lines(&world, &index, 0), ["adopted/192.0.2.1 Ready Adopted", "vm-1 Ready Beating"]);
    assert_eq!(world.decide(&index, at(0))[0].requeue_at, Some(at(500)));
    let both = endpoints(&world.decide(&index, at(0)), false);
    let ports: Vec<u16> = both.iter().map(|endpoint| endpoint.ports.ports()[0].port).collect();
    assert_eq!(ports, [8080, 9001]);
    world.published_port = Some(8080);
    assert_eq!(lines(&world, &index, 0), ["vm-1 Ready Beating"]);
    // The adopted entry does not come back after the instance that beat has expired.
    world.published_port = None;
    let silent = LiveRead::Found(beat("vm-1", 1, 1));
    index.confirm(&Key::new("shop", "greeter.vm-1"), silent, at(40_000), at(40_000));
    assert_eq!(lines(&world, &index, 40_000), ["vm-1 Expired TTLPassed"]);
}

#[test]
fn a_beat_that_was_old_already_when_it_was_taken_over_is_not_its_first() {
    let mut world = at_the_same_port();
    let old = beat("vm-1", 1, 1);
    world.adopted[0].entry.old_beats = vec![token_of(&old)];
    let mut index = inherited(std::slice::from_ref(&old));
    assert_eq!(
        lines(&world, &index, 0),
        ["adopted/192.0.2.1 Ready Adopted", "vm-1 Waiting AwaitingBeat"]
    );
    index.observe("shop", beat("vm-1", 2, 2), at(1_000));
    assert_eq!(lines(&world, &index, 1_000), ["vm-1 Ready Beating"]);
}

#[test]
fn a_beat_that_came_while_the_controller_was_away_is_its_first() {
    let world = at_the_same_port().published("192.0.2.1");
    let index = inherited(&[beat("vm-1", 2, 2)]);
    assert_eq!(lines(&world, &index, 0), ["vm-1 Ready Beating"]);
}

#[test]
fn a_beat_at_another_address_concerns_it_not() {
    let world = only_one();
    let mut index = index();
    index.observe("shop", at_port(beat("vm-2", 1, 1), "192.0.2.2"), at(0));
    assert_eq!(lines(&world, &index, 0), ["adopted/192.0.2.1 Ready Adopted", "vm-2 Ready Beating"]);
}

#[test]
fn of_two_at_one_address_the_one_with_the_port_of_the_beat_has_beaten() {
    let world = world(vec![
        adopted("adopted/192.0.2.1", "192.0.2.1", 8080),
        adopted("adopted/192.0.2.1#2", "192.0.2.1", 8081),
    ]);
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(0));
    assert_eq!(
        lines(&world, &index, 0),
        ["adopted/192.0.2.1#2 Ready Adopted", "vm-1 Ready Beating"]
    );
}

#[test]
fn where_none_has_the_port_of_the_beat_all_of_the_address_have_beaten() {
    let mut world = world(vec![
        adopted("adopted/192.0.2.1", "192.0.2.1", 8081),
        adopted("adopted/192.0.2.1#2", "192.0.2.1", 8082),
    ]);
    world.published_port = Some(8080);
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(0));
    assert_eq!(lines(&world, &index, 0), ["vm-1 Ready Beating"]);
}

#[test]
fn a_cordon_of_its_lease_takes_it_out_though_it_never_beat() {
    let mut world = only_one();
    let mut old = beat("vm-1", 1, 1);
    old.content.cordoned = Some("bad disk".to_owned());
    world.adopted[0].entry.old_beats = vec![token_of(&old)];
    let index = inherited(&[old]);
    assert_eq!(
        lines(&world, &index, 0),
        ["adopted/192.0.2.1 Cordoned Cordoned", "vm-1 Cordoned Cordoned"]
    );
}

#[test]
fn an_address_that_may_no_longer_be_published_is_not() {
    let mut outside = only_one();
    outside.ranges = OutsideRanges::default();
    assert_eq!(lines(&outside, &index(), 0), ["adopted/192.0.2.1 Rejected AddressRefused"]);
    let mut taken = only_one();
    taken.owned = Some("192.0.2.1".parse().expect("an address"));
    assert_eq!(lines(&taken, &index(), 0), ["adopted/192.0.2.1 Rejected AddressRefused"]);
    let mut renamed = only_one();
    renamed.adopted[0].entry.ports[0].name = "grpc".to_owned();
    let verdict = renamed.one(&index(), at(0));
    assert_eq!(
        line(&verdict),
        "Rejected PortUnresolved: it was taken over with the ports [\"grpc\"], of which spec.ports \
         has none any more"
    );
}

#[test]
fn it_counts_for_protection_like_any_ready_instance() {
    let mut world = only_one().published("192.0.2.2");
    world.registration.min_ready = 1;
    let mut index = index();
    let other = at_port(beat("vm-2", 1, 1), "192.0.2.2");
    index.observe("shop", other.clone(), at(0));
    let silent = LiveRead::Found(other);
    index.confirm(&Key::new("shop", "greeter.vm-2"), silent, at(40_000), at(40_000));
    assert_eq!(
        lines(&world, &index, 40_000),
        ["adopted/192.0.2.1 Ready Adopted", "vm-2 Expired TTLPassed"]
    );
}

#[test]
fn consent_is_for_all_or_for_a_list_of_addresses() {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let (one, other) = (address("192.0.2.1"), address("2001:db8::1"));
    for value in [None, Some("false")] {
        let consent = Consent::read(value).expect("readable");
        assert_eq!((consent.is_given(), consent.keeps(one)), (false, false));
    }
    let all = Consent::read(Some("true")).expect("readable");
    assert!(all.is_given() && all.allows(one) && all.keeps(other));
    let list = Consent::read(Some("192.0.2.1, 2001:db8:0::1")).expect("readable");
    assert!(list.allows(one) && list.allows(other) && !list.keeps(address("192.0.2.2")));
}

#[test]
fn an_unreadable_adopt_annotation_adopts_no_instance_and_drops_none() {
    let mut object = object(json!({ "ports": [{ "name": "http", "port": 80 }] }));
    let annotations = [("beatkeeper.dev/adopt".to_owned(), "192.0.2.1,yes".to_owned())];
    object.metadata.annotations = Some(annotations.into());
    let registration = Registration::validate(&object);
    assert_eq!(
        messages(&registration.problems),
        ["annotation beatkeeper.dev/adopt: \"yes\" is not an IP address; write \"true\" for all \
          addresses of the Service, or a list such as \"192.0.2.10,192.0.2.11\""]
    );
    let consent = registration.consent;
    assert!(!consent.is_given() && consent.keeps("192.0.2.9".parse().expect("an address")));
}

#[test]
fn a_beating_instance_is_published_before_an_adopted_one_at_the_same_port() {
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(0));
    let beating = World::new().decide(&index, at(0));
    let mut both =
        world(vec![adopted("adopted/192.0.2.1", "192.0.2.1", 8080)]).decide(&super::index(), at(0));
    both[0].placement.as_mut().expect("a placement").zone = Some("adopted".to_owned());
    both.extend(beating);
    assert_eq!(both[0].state, InstanceState::Ready);
    let published = endpoints(&both, false);
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].zone, None);
}

#[test]
fn what_others_hold_goes_only_when_ours_hold_all_of_it_that_stays() {
    let slice = |addresses: Value| {
        let endpoints = json!([{ "addresses": addresses }]);
        serde_json::from_value(json!({ "addressType": "IPv4", "endpoints": endpoints }))
            .expect("a slice")
    };
    let listed = json!({ "subsets": [{ "addresses": [{ "ip": "192.0.2.1" }] }] });
    let verdicts = only_one().decide(&index(), at(0));
    let ours = |addresses: &[&str]| {
        let parsed = addresses.iter().map(|address| address.parse().expect("an address"));
        PublishedAddresses::as_ready(parsed.collect())
    };
    for adoption in [
        Adoption { leftovers: vec![slice(json!(["192.0.2.1"]))], ..Adoption::default() },
        Adoption {
            endpoints: Some(serde_json::from_value(listed).expect("Endpoints")),
            ..Adoption::default()
        },
    ] {
        assert!(!adoption.is_complete(&verdicts, &ours(&[])), "it was refused, or has to wait");
        assert!(adoption.is_complete(&verdicts, &ours(&["192.0.2.1"])));
        assert!(adoption.is_complete(&[], &ours(&[])), "no adopted instance stays");
    }
    let others = Adoption { leftovers: vec![slice(json!(["192.0.2.2"]))], ..Adoption::default() };
    assert!(others.is_complete(&verdicts, &ours(&[])), "a newcomer keeps nothing up");
}

//! The store goes back to an earlier state while this process continues.

use super::*;
use crate::{decide::cordons::Cordons, liveness::index::Presence};

const LEASE: &str = "greeter.vm-1";

/// An instance that beat with token 5 at moment 1000, and is published.
fn living() -> Index {
    let mut index = index();
    index.observe("shop", beat("vm-1", 5, 20_000), at(1000));
    assert_eq!(told(&mut index, &["192.0.2.1"], 1000), "Ready Beating: ");
    index
}

/// The store goes back at 60 s, and the new list shows these Leases.
fn go_back(index: &mut Index, shows: &[Heartbeat]) {
    index.reset_after_rollback(at(60_000));
    index.begin_list();
    for beat in shows {
        index.observe("shop", beat.clone(), at(61_000));
    }
    index.end_list();
}

/// Returns the verdict with these addresses in the slices.
fn told(index: &mut Index, published: &[&str], now: u64) -> String {
    if index.count() == 0 {
        return "none".to_owned();
    }
    let world = published.iter().fold(World::new(), |world, address| world.published(address));
    let verdict = world.one(index, at(now));
    world.commit(index, at(now));
    line(&verdict)
}

#[test]
fn a_lower_version_in_a_list_shows_that_the_store_went_back() {
    let mut index = living();
    index.begin_list();
    index.observe("shop", beat("vm-1", 5, 20_000), at(2000));
    assert!(!index.went_back(), "as it was");
    index.end_list();
    index.begin_list();
    index.observe("shop", beat("vm-1", 3, 400), at(3000));
    assert!(index.went_back());
    assert!(!index.went_back(), "told once");
}

#[test]
fn a_list_is_not_suspected_for_what_was_read_live_since_it_began() {
    let mut index = living();
    index.begin_list();
    index.confirm(&key(LEASE), found(&beat("vm-1", 6, 20_010)), at(2000), at(2001));
    index.observe("shop", beat("vm-1", 5, 20_000), at(2002));
    assert!(!index.went_back());
}

#[test]
fn the_version_of_a_probe_counts_as_the_version_of_a_lease_until_the_store_goes_back() {
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 5), at(0));
    let newest = index.newest();
    index.note_version(Version(newest.0 + 10));
    index.note_version(Version(newest.0 + 3));
    assert_eq!(index.newest(), Version(newest.0 + 10));
    index.reset_after_rollback(at(1));
    assert_eq!(index.newest(), Version(0));
}

#[test]
fn a_live_read_at_a_lower_version_shows_that_the_store_went_back() {
    let mut index = living();
    index.confirm(&key(LEASE), found(&beat("vm-1", 5, 400)), at(2000), at(2001));
    assert!(index.went_back());
}

#[test]
fn another_token_is_no_beat_but_gives_a_ttl_to_beat_in() {
    let mut index = living();
    go_back(&mut index, &[beat("vm-1", 3, 400)]);
    assert_eq!(only(&index).token.renewed, Some(3));
    assert_eq!(only(&index).silence().since, at(61_000));
    assert!(told(&mut index, &["192.0.2.1"], 62_000).starts_with("Ready BeatOverdue"));
    index.confirm(&key(LEASE), found(&beat("vm-1", 3, 400)), at(91_000), at(91_000));
    assert!(told(&mut index, &["192.0.2.1"], 91_000).starts_with("Expired"), "it never came");
}

#[test]
fn an_instance_that_beats_after_a_rollback_lives_by_the_versions_of_the_new_history() {
    let mut index = living();
    go_back(&mut index, &[beat("vm-1", 3, 400)]);
    assert!(index.observe("shop", beat("vm-1", 4, 401), at(64_000)).beat);
    assert_eq!((only(&index).seen, only(&index).grace), (at(64_000), None));
    assert_eq!(told(&mut index, &["192.0.2.1"], 64_000), "Ready Beating: ");
}

#[test]
fn a_published_instance_stays_though_the_slices_of_an_earlier_state_lack_it() {
    let mut index = living();
    go_back(&mut index, &[beat("vm-1", 3, 400)]);
    assert!(told(&mut index, &[], 62_000).starts_with("Ready"));
}

#[test]
fn an_instance_registered_after_the_backup_has_lost_its_lease_and_stays_for_a_ttl() {
    let mut index = living();
    go_back(&mut index, &[]);
    assert_eq!(only(&index).presence, Presence::Missing);
    index.confirm(&key(LEASE), LiveRead::Absent, at(61_000), at(61_001));
    assert!(told(&mut index, &[], 62_000).starts_with("Ready"));
    // The instance makes its Lease again.
    let mut anew = beat("vm-1", 9, 500);
    anew.token.uid = "uid-2".into();
    let mut back = index;
    assert!(back.observe("shop", anew, at(63_000)).beat);
    assert_eq!(told(&mut back, &["192.0.2.1"], 63_000), "Ready Beating: ");
}

#[test]
fn an_instance_without_a_lease_that_does_not_return_leaves_after_a_ttl_and_is_forgotten() {
    let mut index = living();
    go_back(&mut index, &[]);
    index.confirm(&key(LEASE), LiveRead::Absent, at(89_999), at(90_001));
    assert!(told(&mut index, &["192.0.2.1"], 90_001).starts_with("Ready"));
    index.confirm(&key(LEASE), LiveRead::Absent, at(90_002), at(90_003));
    assert!(told(&mut index, &["192.0.2.1"], 90_003).starts_with("Expired"));
    index.confirm(&key(LEASE), LiveRead::Absent, at(90_004), at(90_005));
    assert_eq!(told(&mut index, &[], 90_005), "none");
}

#[test]
fn a_replica_that_does_not_decide_forgets_lost_leases_all_the_same() {
    let mut index = living();
    go_back(&mut index, &[]);
    index.forget_unshown(&key("greeter"), std::time::Duration::from_secs(60), at(119_999));
    assert_eq!(index.count(), 1);
    index.forget_unshown(&key("greeter"), std::time::Duration::from_secs(60), at(120_000));
    assert_eq!(index.count(), 0);
}

/// An instance that has expired with token 5.
fn dead() -> Index {
    let mut index = living();
    index.confirm(&key(LEASE), found(&beat("vm-1", 5, 20_000)), at(31_000), at(31_000));
    assert!(told(&mut index, &["192.0.2.1"], 31_000).starts_with("Expired"));
    index
}

#[test]
fn a_dead_instance_stays_dead_though_the_slices_of_an_earlier_state_hold_it() {
    let mut index = dead();
    go_back(&mut index, &[beat("vm-1", 5, 400)]);
    assert!(told(&mut index, &["192.0.2.1"], 62_000).starts_with("Expired"));
}

#[test]
fn a_dead_instance_that_shows_another_token_is_treated_as_at_a_start() {
    let mut index = dead();
    go_back(&mut index, &[beat("vm-1", 3, 400)]);
    assert!(told(&mut index, &[], 62_000).starts_with("Waiting AwaitingBeat"));
    assert!(told(&mut index, &["192.0.2.1"], 62_000).starts_with("Ready"), "a ttl to beat in");
    index.confirm(&key(LEASE), found(&beat("vm-1", 3, 400)), at(91_000), at(91_000));
    assert!(told(&mut index, &["192.0.2.1"], 91_000).starts_with("Expired"));
}

#[test]
fn a_lease_that_only_the_earlier_state_knows_waits_for_a_beat() {
    let mut index = index();
    go_back(&mut index, &[beat("vm-1", 3, 400)]);
    assert!(told(&mut index, &[], 62_000).starts_with("Waiting AwaitingBeat"));
    assert!(index.observe("shop", beat("vm-1", 4, 401), at(63_000)).beat);
    assert_eq!(told(&mut index, &[], 63_000), "Ready Beating: ");
}

#[test]
fn a_list_that_began_before_the_store_was_found_to_have_gone_back_is_not_the_new_one() {
    let mut index = living();
    index.begin_list();
    index.reset_after_rollback(at(60_000));
    assert_eq!(index.end_list().wake, [key("greeter")], "missing from the old list");
    go_back(&mut index, &[beat("vm-1", 3, 400)]);
    assert_eq!(only(&index).presence, Presence::Watched);
}

#[test]
fn a_cordon_holds_though_the_earlier_state_of_its_lease_does_not_carry_it() {
    let (mut world, mut index) = (World::new(), living());
    let mut cordoned = beat("vm-1", 6, 20_001);
    cordoned.content.cordoned = Some("bad disk".to_owned());
    index.observe("shop", cordoned, at(2000));
    go_back(&mut index, &[beat("vm-1", 3, 400)]);
    let cordons = Cordons::stand(&world.registration, &mut index);
    assert_eq!((cordons.held.len(), cordons.unmarked.len(), &*cordons.lifted), (1, 1, &[][..]));
    // The status contains the cordon before the watch has shown that the Lease carries it again.
    index.cordon_is_written(&key("greeter"), &cordons.unmarked[0]);
    world.registration.cordoned = cordons.remember(&[], jiff::Timestamp::UNIX_EPOCH);
    let cordons = Cordons::stand(&world.registration, &mut index);
    assert_eq!((cordons.held.len(), &*cordons.lifted), (1, &[][..]));
    // From now on, removing the annotation from the Lease lifts the cordon.
    index.observe("shop", beat("vm-1", 4, 401), at(63_000));
    let mut again = beat("vm-1", 4, 402);
    again.content.cordoned = Some("bad disk".to_owned());
    index.observe("shop", again, at(63_500));
    index.observe("shop", beat("vm-1", 5, 403), at(64_000));
    let cordons = Cordons::stand(&world.registration, &mut index);
    assert_eq!((cordons.held.len(), &*cordons.lifted), (0, &["vm-1".to_owned()][..]));
}

#[test]
fn one_without_its_label_is_in_no_list_and_is_read_live() {
    let mut index = dead();
    let mut unlabelled = beat("vm-1", 5, 20_001);
    unlabelled.registration = None;
    index.confirm(&key(LEASE), found(&unlabelled), at(32_000), at(32_000));
    assert_eq!(only(&index).presence, Presence::Unlabelled);
    go_back(&mut index, &[]);
    assert_eq!(index.missing(&key("greeter")).count(), 1);
    index.confirm(&key(LEASE), LiveRead::Absent, at(62_000), at(62_000));
    assert_eq!(index.count(), 0);
}

/// A Lease that was made at noon, with a beat this many seconds before noon.
fn made_at_noon(seconds_before: i64) -> Heartbeat {
    let noon: jiff::Timestamp = "2026-11-28T12:00:00Z".parse().expect("a time");
    let beat = noon - jiff::SignedDuration::from_secs(seconds_before);
    let mut made = Heartbeat::read(&lease(json!({
        "metadata": { "name": LEASE, "uid": "made-anew", "resourceVersion": "7",
                      "creationTimestamp": noon.to_string() },
        "spec": { "holderIdentity": "vm-1", "renewTime": beat.to_string() },
    })));
    made.registration = Some("greeter".to_owned());
    made.content.addresses = vec!["192.0.2.1".into()];
    made
}

#[test]
fn a_restored_lease_is_no_beat() {
    for (age, beats) in [(-3600, true), (0, true), (300, true), (301, false), (86_400, false)] {
        let mut index = index();
        assert_eq!(index.observe("shop", made_at_noon(age), at(1000)).beat, beats, "{age} s");
        let told = told(&mut index, &[], 1000);
        assert_eq!(told.starts_with("Ready"), beats, "{age} s: {told}");
    }
    let mut index = index();
    index.observe("shop", made_at_noon(3600), at(1000));
    let mut beat = made_at_noon(3600);
    beat.token.renewed = Some(1);
    beat.version = Version(8);
    assert!(index.observe("shop", beat, at(2000)).beat, "whatever its clock says");
    assert_eq!(told(&mut index, &[], 2000), "Ready Beating: ");
}

#[test]
fn a_lease_restored_in_place_of_a_known_one_revives_no_instance() {
    let mut index = dead();
    let put_back = Heartbeat { version: Version(20_100), ..made_at_noon(3600) };
    assert!(!index.observe("shop", put_back, at(40_000)).beat);
    assert!(told(&mut index, &[], 40_000).starts_with("Expired"));
}

//! Leases that are missing, lose their label, change their registration, are misnamed, or are gone.

use super::*;
use crate::liveness::index::Presence;

const LEASE: &str = "greeter.vm-1";

fn unlabelled(renewed: i64, version: u64) -> Heartbeat {
    Heartbeat { registration: None, ..beat("vm-1", renewed, version) }
}

fn with_one() -> Index {
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(1000));
    index
}

#[test]
fn what_a_relist_does_not_show_is_missing_but_not_gone() {
    let mut index = with_one();
    index.begin_list();
    assert_eq!(index.end_list(), woken(false));
    let record = only(&index);
    assert_eq!((record.presence, record.seen), (Presence::Missing, at(1000)));
    let suspect = World::new().one(&index, at(2000)).lease.expect("its Lease").suspect;
    assert_eq!(suspect.expect("a live read is asked for").deadline, None);
}

#[test]
fn a_deletion_counts_only_after_a_404() {
    let mut index = with_one();
    assert_eq!(index.observe_deleted(&key(LEASE), Version(2)), woken(false));
    assert_eq!(line(&World::new().one(&index, at(2000))), "Ready Beating: ");
    assert_eq!(index.confirm(&key(LEASE), LiveRead::Absent, at(2000), at(2001)), woken(false));
    assert!(index.records_of(&key("greeter")).is_empty());
    assert_eq!(index.registrations().count(), 0, "nothing is left of it");
}

#[test]
fn a_stripped_label_leaves_the_lease_followed_by_live_reads() {
    let mut index = with_one();
    index.observe_deleted(&key(LEASE), Version(2));
    let observed = index.confirm(&key(LEASE), found(&unlabelled(1, 2)), at(2000), at(2001));
    assert_eq!(observed, woken(false));
    assert_eq!((only(&index).presence, only(&index).seen), (Presence::Unlabelled, at(1000)));
    let read = found(&unlabelled(2, 3));
    assert!(index.confirm(&key(LEASE), read, at(31_000), at(31_001)).beat, "it beats on");
    assert_eq!(line(&World::new().one(&index, at(31_001))), "Ready Beating: ");
    assert_eq!(index.observe("shop", beat("vm-1", 2, 4), at(32_000)), woken(false), "it is back");
    assert_eq!(only(&index).presence, Presence::Watched);
}

#[test]
fn a_lease_that_never_had_a_label_belongs_to_no_registration() {
    let mut index = index();
    assert_eq!(index.observe("shop", unlabelled(1, 1), at(5)), nothing());
    assert_eq!(index.registrations().count(), 0);
}

#[test]
fn a_changed_label_moves_the_lease_and_wakes_both() {
    let mut index = with_one();
    let moved = Heartbeat { registration: Some("other".to_owned()), ..beat("vm-1", 1, 2) };
    let observed = index.observe("shop", moved, at(2000));
    assert_eq!(
        observed,
        Observed { beat: false, since: None, wake: vec![key("other"), key("greeter")] }
    );
    assert!(index.records_of(&key("greeter")).is_empty());
    assert_eq!(index.records_of(&key("other"))[0].seen, at(1000), "a label is no beat");
    assert_eq!(index.observe("shop", beat("vm-1", 9, 1), at(3000)), nothing(), "a late event");
}

#[test]
fn moving_an_expired_lease_away_and_back_does_not_revive_it() {
    let mut index = with_one();
    index.confirm(&key(LEASE), found(&beat("vm-1", 1, 1)), at(31_000), at(31_000));
    assert!(World::new().commit(&mut index, at(31_000)));
    let moved = Heartbeat { registration: Some("other".to_owned()), ..beat("vm-1", 1, 2) };
    index.observe("shop", moved, at(32_000));
    index.observe("shop", beat("vm-1", 1, 3), at(33_000));
    assert_eq!(
        line(&World::new().one(&index, at(33_000))),
        "Expired TTLPassed: no beat for its ttl of 30s"
    );
}

#[test]
fn a_successor_of_a_deleted_lease_begins_anew() {
    let mut index = with_one();
    index.observe("shop", beat("vm-2", 1, 2), at(1000));
    index.confirm(&key(LEASE), LiveRead::Absent, at(2000), at(2001));
    let second = beat("vm-0", 1, 3);
    assert_eq!(index.observe("shop", second, at(3000)), woken(true), "its place is given anew");
    assert_eq!(index.observe("shop", beat("vm-1", 1, 4), at(4000)), woken(true));
    let records = index.records_of(&key("greeter"));
    let known: Vec<_> = records.iter().map(|record| (&*record.lease, record.seen)).collect();
    let expected = [("greeter.vm-0", 3000), ("greeter.vm-1", 4000), ("greeter.vm-2", 1000)];
    assert_eq!(known, expected.map(|(lease, seen)| (lease, at(seen))));
}

#[test]
fn a_misnamed_lease_is_found_again() {
    let mut index = index();
    let misnamed = |renewed, version| Heartbeat {
        lease: "stray.vm-1".to_owned(),
        ..beat("vm-1", renewed, version)
    };
    assert_eq!(index.observe("shop", misnamed(1, 1), at(5)), woken(true));
    assert_eq!(index.observe("shop", misnamed(2, 2), at(6)), woken_after(1));
    assert_eq!((only(&index).seen, index.registrations().count()), (at(6), 1));
    assert_eq!(index.observe_deleted(&key("stray.vm-1"), Version(3)), woken(false));
    let absent = index.confirm(&key("stray.vm-1"), LiveRead::Absent, at(7), at(8));
    assert_eq!((absent, index.registrations().count()), (woken(false), 0));
}

#[test]
fn a_read_sent_before_the_deadline_is_no_evidence_of_silence() {
    let mut index = with_one();
    let silence = found(&beat("vm-1", 1, 1));
    index.confirm(&key(LEASE), silence.clone(), at(30_999), at(31_500));
    assert_eq!(World::new().published("192.0.2.1").one(&index, at(31_500)).state.as_str(), "Ready");
    index.confirm(&key(LEASE), silence, at(31_000), at(31_501));
    assert_eq!(only(&index).silent_at, Some(at(31_000)));
    assert_eq!(World::new().one(&index, at(31_501)).state.as_str(), "Expired");
}

#[test]
fn evidence_never_goes_back_when_answers_come_in_another_order() {
    let mut index = with_one();
    index.confirm(&key(LEASE), found(&beat("vm-1", 1, 1)), at(31_000), at(31_500));
    index.confirm(&key(LEASE), found(&beat("vm-1", 1, 1)), at(30_000), at(31_600));
    assert_eq!(only(&index).silent_at, Some(at(31_000)));
}

#[test]
fn a_live_read_that_shows_a_new_token_is_a_beat_and_clears_the_evidence() {
    let mut index = with_one();
    index.confirm(&key(LEASE), found(&beat("vm-1", 1, 1)), at(31_000), at(31_001));
    assert_eq!(
        index.confirm(&key(LEASE), found(&beat("vm-1", 2, 2)), at(31_002), at(31_003)),
        woken_after(30_003)
    );
    assert_eq!((only(&index).silent_at, only(&index).seen), (None, at(31_003)));
}

#[test]
fn a_404_of_before_the_lease_reappeared_does_not_remove_it() {
    let mut index = with_one();
    index.observe_deleted(&key(LEASE), Version(2));
    let mut anew = beat("vm-1", 1, 3);
    anew.token.uid = "uid-2".into();
    index.observe("shop", anew, at(2000));
    for sent in [1999, 2000] {
        assert_eq!(index.confirm(&key(LEASE), LiveRead::Absent, at(sent), at(2001)), nothing());
    }
    // The label is removed before the old answer arrives.
    index.observe_deleted(&key(LEASE), Version(4));
    assert_eq!(index.confirm(&key(LEASE), LiveRead::Absent, at(1999), at(2002)), nothing());
    assert_eq!(index.confirm(&key(LEASE), LiveRead::Absent, at(2000), at(2003)), woken(false));
}

#[test]
fn a_404_that_is_newer_than_the_watch_removes_a_lease_the_watch_still_shows() {
    let mut index = with_one();
    assert_eq!(index.confirm(&key(LEASE), LiveRead::Absent, at(1001), at(1002)), woken(false));
    assert_eq!(index.registrations().count(), 0);
}

#[test]
fn a_lease_that_its_finalizers_let_go_is_forgotten_without_a_read() {
    for relist in [false, true] {
        let mut index = with_one();
        let mut deleting = beat("vm-1", 1, 2);
        deleting.content.deleting = true;
        assert_eq!(index.observe("shop", deleting, at(2000)), woken(false));
        assert_eq!(World::new().decide(&index, at(2000)), vec![], "it is gone already");
        let observed = if relist {
            index.begin_list();
            index.end_list()
        } else {
            index.observe_deleted(&key(LEASE), Version(3))
        };
        assert_eq!(observed, woken(false));
        assert_eq!(index.registrations().count(), 0, "relist: {relist}");
    }
}

#[test]
fn the_registrations_of_a_pod_are_known_while_a_lease_names_it_and_no_longer() {
    let mut index = index();
    let pod = key("web-1");
    index.observe("shop", pod_beat("web-1", 1, 1), at(5));
    let mut second = pod_beat("web-1", 1, 2);
    second.lease = "greeter.web-1-admin".to_owned();
    index.observe("shop", second.clone(), at(5));
    let mut elsewhere = pod_beat("web-1", 1, 3);
    elsewhere.lease = "other.web-1".to_owned();
    elsewhere.registration = Some("other".to_owned());
    index.observe("shop", elsewhere, at(5));
    let mut both = index.registrations_of_pod(&pod);
    both.sort();
    assert_eq!(both, [key("greeter"), key("other")]);

    index.confirm(&key("greeter.web-1"), LiveRead::Absent, at(6), at(7));
    assert_eq!(index.registrations_of_pod(&pod).len(), 2, "the second Lease still names it");
    second.content.origin = Origin::Pod { name: "web-2".to_owned(), uid: "web-2-uid".to_owned() };
    second.version = Version(9);
    index.observe("shop", second, at(8));
    assert_eq!(index.registrations_of_pod(&pod), [key("other")], "it names another Pod now");
    assert_eq!(index.registrations_of_pod(&key("web-2")), [key("greeter")]);
    index.confirm(&key("other.web-1"), LiveRead::Absent, at(9), at(9));
    assert_eq!(index.registrations_of_pod(&pod), []);
}

#[test]
fn leases_of_the_same_name_in_two_namespaces_are_strangers() {
    let mut index = with_one();
    let observed = index.observe("bank", beat("vm-1", 7, 7), at(5000));
    assert_eq!(observed.wake, [Key::new("bank", "greeter")]);
    assert_eq!(only(&index).seen, at(1000));
}

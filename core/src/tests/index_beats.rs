//! Which events count as a beat, which registrations a beat wakes, and in which order events may come.

use super::*;
use crate::liveness::index::{Presence, Provenance};

/// A beating instance that a decision at moment 1000 has found quiet.
fn quiet() -> (World, Index) {
    let (world, mut index) = (World::new(), index());
    index.observe("shop", beat("vm-1", 1, 1), at(1000));
    assert!(world.commit(&mut index, at(1000)));
    (world, index)
}

#[test]
fn a_beat_that_changes_nothing_is_noted_and_wakes_no_registration() {
    let (_, mut index) = quiet();
    let observed = index.observe("shop", beat("vm-1", 2, 2), at(11_000));
    let since = Some(std::time::Duration::from_secs(10));
    assert_eq!(observed, Observed { beat: true, since, wake: vec![] });
    assert_eq!(only(&index).seen, at(11_000));
}

#[test]
fn the_first_sight_of_an_instance_wakes_its_registration() {
    assert_eq!(index().observe("shop", beat("vm-1", 1, 1), at(5)), woken(true));
}

#[test]
fn a_beat_before_the_first_decision_wakes() {
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(5));
    assert_eq!(index.observe("shop", beat("vm-1", 2, 2), at(6)), woken_after(1));
}

#[test]
fn a_beat_of_an_overdue_an_expired_or_a_waiting_instance_wakes() {
    let (world, mut index) = quiet();
    // Overdue at 10 s + half of the slack of 20 s.
    assert!(world.commit(&mut index, at(21_000)));
    assert_eq!(
        index.observe("shop", beat("vm-1", 2, 2), at(22_000)),
        woken_after(21_000),
        "overdue"
    );

    index.confirm(&key("greeter.vm-1"), found(&beat("vm-1", 2, 2)), at(52_000), at(52_001));
    assert!(world.commit(&mut index, at(52_002)));
    assert_eq!(only(&index).expired_at, Some(at(52_002)));
    assert_eq!(
        index.observe("shop", beat("vm-1", 3, 3), at(60_000)),
        woken_after(38_000),
        "expired"
    );
    assert_eq!(only(&index).expired_at, None);

    let mut waiting = inherited(&[beat("vm-1", 1, 1)]);
    assert!(world.commit(&mut waiting, at(1)));
    assert_eq!(waiting.observe("shop", beat("vm-1", 2, 2), at(2)), woken(true), "waiting");
}

#[test]
fn an_older_version_never_overtakes_a_newer_one() {
    let (_, mut index) = quiet();
    index.observe("shop", beat("vm-1", 3, 30), at(11_000));
    let mut late = beat("vm-1", 2, 20);
    late.content.cordoned = Some("long over".to_owned());
    assert_eq!(index.observe("shop", late, at(12_000)), nothing());
    let record = only(&index);
    assert_eq!((record.seen, record.version), (at(11_000), Version(30)));
    assert_eq!((record.token.renewed, &record.content.cordoned), (Some(3), &None));
}

#[test]
fn a_late_deletion_does_not_overtake_the_lease_that_was_made_anew() {
    let (_, mut index) = quiet();
    let mut anew = beat("vm-1", 1, 12);
    anew.token.uid = "uid-2".into();
    assert!(index.observe("shop", anew, at(2000)).beat, "another uid is life");
    assert_eq!(index.observe_deleted(&key("greeter.vm-1"), Version(11)), nothing());
    assert_eq!(only(&index).presence, Presence::Watched);
}

#[test]
fn a_read_answered_before_the_deletion_does_not_bring_the_lease_back() {
    let (_, mut index) = quiet();
    assert_eq!(index.observe_deleted(&key("greeter.vm-1"), Version(9)), woken(false));
    let late = found(&beat("vm-1", 1, 1));
    assert_eq!(index.confirm(&key("greeter.vm-1"), late, at(1900), at(2001)), nothing());
    assert_eq!(only(&index).presence, Presence::Missing);
}

#[test]
fn a_renew_time_that_goes_backwards_or_far_ahead_is_a_beat_like_any_other() {
    let (_, mut index) = quiet();
    let day = 24 * 3600 * 1_000_000;
    for (n, renewed) in [-day, i64::MAX, 0, i64::MIN, 1].into_iter().enumerate() {
        let now = at(2000 + n as u64);
        let observed = index.observe("shop", beat("vm-1", renewed, 2 + n as u64), now);
        let since = Some(std::time::Duration::from_millis(if n == 0 { 1000 } else { 1 }));
        assert_eq!(observed, Observed { beat: true, since, wake: vec![] }, "{renewed}");
        assert_eq!(only(&index).seen, now);
    }
}

#[test]
fn a_write_that_leaves_the_renew_time_alone_is_no_beat() {
    let (_, mut index) = quiet();
    assert_eq!(index.observe("shop", beat("vm-1", 1, 2), at(9000)), nothing());
    assert_eq!((only(&index).seen, only(&index).version), (at(1000), Version(2)));
    let mut noted = beat("vm-1", 1, 3);
    noted.content.note = Some("disk 91 %".to_owned());
    assert_eq!(index.observe("shop", noted, at(9500)), woken(false), "a note is a change");
    assert_eq!(only(&index).seen, at(1000));
}

#[test]
fn a_relist_with_unchanged_tokens_keeps_the_old_moments() {
    let (_, mut index) = quiet();
    index.begin_list();
    assert_eq!(index.observe("shop", beat("vm-1", 1, 1), at(20_000)), nothing());
    assert_eq!(index.end_list(), nothing());
    assert_eq!((only(&index).seen, only(&index).provenance), (at(1000), Provenance::Changed));
}

#[test]
fn a_beat_that_only_the_relist_shows_is_a_beat() {
    let (_, mut index) = quiet();
    index.begin_list();
    assert!(index.observe("shop", beat("vm-1", 2, 5), at(20_000)).beat);
    assert_eq!(only(&index).seen, at(20_000));
}

#[test]
fn what_the_first_list_shows_is_inherited_and_what_appears_later_has_changed() {
    let mut index = Index::default();
    index.begin_list();
    let observed = index.observe("shop", beat("vm-1", 1, 1), at(5));
    assert_eq!(observed, woken(false), "its presence is no beat");
    assert!(!index.is_complete());
    assert_eq!(index.end_list(), nothing());
    assert!(index.is_complete());
    index.observe("shop", beat("vm-2", 1, 2), at(6));
    index.begin_list();
    index.observe("shop", beat("vm-3", 1, 3), at(7));
    let sights: Vec<_> = index.records_of(&key("greeter")).iter().map(|r| r.provenance).collect();
    assert_eq!(sights, [Provenance::Inherited, Provenance::Changed, Provenance::Changed]);
}

#[test]
fn a_beat_between_two_attempts_at_the_first_list_is_seen() {
    let mut index = Index::default();
    index.begin_list();
    index.observe("shop", beat("vm-1", 1, 1), at(5));
    index.begin_list();
    assert!(index.observe("shop", beat("vm-1", 2, 2), at(6)).beat);
    index.end_list();
    assert_eq!(only(&index).provenance, Provenance::Changed);
}

#[test]
fn after_the_history_was_rolled_back_a_live_read_makes_beats_count_again() {
    let (_, mut index) = quiet();
    index.observe("shop", beat("vm-1", 5, 900), at(2000));
    // The watch alone cannot distinguish a rollback from a late event.
    assert_eq!(index.observe("shop", beat("vm-1", 6, 50), at(3000)), nothing());
    let restored = found(&beat("vm-1", 6, 50));
    assert!(!index.confirm(&key("greeter.vm-1"), restored.clone(), at(2000), at(3001)).beat);
    assert!(index.confirm(&key("greeter.vm-1"), restored, at(2001), at(3001)).beat);
    assert!(index.observe("shop", beat("vm-1", 7, 60), at(4000)).beat);
}

use super::*;

fn key() -> Key {
    Key::new("shop", "greeter")
}

#[test]
fn a_stale_event_does_not_undo_our_own_write() {
    let mut cache = ObjectCache::default();
    cache.put(key(), Version(5), "written by us");
    assert_eq!(cache.put(key(), Version(4), "from the watch, late"), None);
    assert_eq!(cache.get(&key()), Some(&"written by us"));
}

#[test]
fn the_echo_of_our_own_write_is_no_change() {
    let mut cache = ObjectCache::default();
    assert!(cache.put(key(), Version(5), "same").is_some());
    assert_eq!(cache.put(key(), Version(5), "same"), None);
}

#[test]
fn what_we_deleted_does_not_come_back_with_a_late_event() {
    let mut cache = ObjectCache::default();
    cache.put(key(), Version(5), "slice");
    cache.remove_own(&key(), Version(5));
    assert_eq!(cache.put(key(), Version(5), "late"), None);
    assert_eq!(cache.get(&key()), None);
    assert!(cache.put(key(), Version(9), "made anew").is_some());
}

#[test]
fn a_deleted_object_does_not_come_back_with_a_late_answer() {
    let mut cache = ObjectCache::default();
    cache.put(key(), Version(5), "slice");
    // We wrote version 6. Another client deleted it at version 7, and the watch was faster than the answer.
    cache.put(key(), Version(6), "written by us");
    cache.remove(&key(), Version(7));
    assert_eq!(cache.put_own(key(), Version(6), "written by us"), None);
    assert_eq!(cache.get(&key()), None);
    assert!(cache.put_own(key(), Version(8), "made anew by us").is_some());
    cache.begin_list();
    cache.end_list();
    assert!(cache.put_own(key(), Version(3), "after a restore").is_some());
}

fn strange(version: u64) -> Unreadable {
    Unreadable {
        kind: "Pod",
        key: key(),
        version: Version(version),
        service: None,
        owner: None,
        why: "spec: invalid type".to_owned(),
    }
}

#[test]
fn what_cannot_be_read_stays_as_it_was_known_until_it_can_be_or_is_gone() {
    let mut cache = ObjectCache::default();
    cache.put(key(), Version(5), "known");
    cache.begin_list();
    cache.put_unreadable(strange(6));
    assert_eq!(cache.end_list(), [], "it is there");
    assert_eq!(cache.get(&key()), Some(&"known"));
    assert!(cache.unreadable(&key()).is_some());
    cache.put(key(), Version(5), "late");
    assert!(cache.unreadable(&key()).is_some(), "an older version says nothing of the newest");
    assert!(cache.put(key(), Version(7), "read").is_some());
    assert_eq!(cache.unreadable(&key()), None);
    cache.put_unreadable(strange(8));
    assert!(cache.remove(&key(), Version(9)).is_some());
    assert_eq!(cache.unreadable(&key()), None);
    cache.put_unreadable(strange(10));
    cache.begin_list();
    cache.end_list();
    assert_eq!(cache.unreadable(&key()), None, "a list without it");
}

#[test]
fn a_list_that_shows_an_older_version_replaces_what_was_known_before_it_began() {
    let mut cache = ObjectCache::default();
    cache.put(key(), Version(5), "of the old history");
    cache.begin_list();
    let change = cache.put(key(), Version(3), "restored").expect("a change");
    assert_eq!((change.old, change.new), (Some("of the old history"), Some("restored")));
    assert_eq!(cache.end_list(), []);
    assert_eq!(cache.get(&key()), Some(&"restored"));
    assert!(cache.went_back());
    assert!(!cache.went_back(), "told once");
    assert!(cache.put(key(), Version(4), "and goes on from there").is_some());
}

#[test]
fn a_list_replaces_what_we_wrote_or_deleted_before_it_began() {
    let mut cache = ObjectCache::default();
    let deleted = Key::new("shop", "deleted");
    cache.put(deleted.clone(), Version(4), "slice");
    cache.remove_own(&deleted, Version(4));
    cache.put_own(key(), Version(5), "written by us");
    cache.begin_list();
    cache.put(key(), Version(3), "restored");
    cache.put(deleted.clone(), Version(2), "restored");
    cache.end_list();
    assert_eq!(cache.get(&key()), Some(&"restored"));
    assert_eq!(cache.get(&deleted), Some(&"restored"));
}

#[test]
fn a_list_does_not_undo_what_we_wrote_or_deleted_since_it_began() {
    let mut cache = ObjectCache::default();
    let deleted = Key::new("shop", "deleted");
    cache.put(key(), Version(2), "before");
    cache.put(deleted.clone(), Version(4), "slice");
    cache.begin_list();
    cache.put_own(key(), Version(5), "written by us");
    cache.remove_own(&deleted, Version(4));
    assert_eq!(cache.put(key(), Version(3), "answered before"), None);
    assert_eq!(cache.put(deleted.clone(), Version(4), "answered before"), None);
    cache.end_list();
    assert_eq!(cache.get(&key()), Some(&"written by us"));
    assert_eq!(cache.get(&deleted), None);
    assert!(!cache.went_back());
}

#[test]
fn a_read_that_shows_an_older_version_than_was_known_when_it_was_sent_replaces_it() {
    let mut cache = ObjectCache::default();
    cache.put(key(), Version(50), "of the old history");
    assert!(cache.put_read(key(), Version(7), Version(50), "restored").is_some());
    assert!(cache.went_back());
    cache.put(key(), Version(60), "newer");
    assert_eq!(cache.put_read(key(), Version(55), Version(7), "overtaken"), None);
    assert!(!cache.went_back());
}

#[test]
fn a_late_deletion_does_not_take_the_successor_away() {
    let mut cache = ObjectCache::default();
    cache.put(key(), Version(9), "successor");
    assert_eq!(cache.remove(&key(), Version(7)), None);
    assert_eq!(cache.get(&key()), Some(&"successor"));
}

#[test]
fn a_list_removes_what_it_does_not_show_but_not_what_we_wrote_meanwhile() {
    let mut cache = ObjectCache::default();
    let (stays, goes, ours) =
        (Key::new("shop", "stays"), Key::new("shop", "goes"), Key::new("shop", "ours"));
    cache.put(stays.clone(), Version(1), "");
    cache.put(goes.clone(), Version(2), "");
    cache.begin_list();
    cache.put(stays.clone(), Version(1), "");
    cache.put_own(ours.clone(), Version(8), "");
    let gone = cache.end_list();
    assert_eq!(gone, [Change { key: goes, old: Some(""), new: None }]);
    assert!(cache.get(&stays).is_some() && cache.get(&ours).is_some());
}

#[test]
fn what_a_list_shows_for_the_first_time_is_there_when_it_has_ended_and_what_it_lacks_is_gone() {
    let mut cache = ObjectCache::default();
    let (older, newer) = (Key::new("shop", "older"), Key::new("shop", "newer"));
    cache.put(newer.clone(), Version(9), "has replaced the older one");
    cache.begin_list();
    assert_eq!(cache.put(older.clone(), Version(3), "of an earlier state"), None);
    assert!(cache.get(&older).is_none() && cache.get(&newer).is_some(), "never both");
    let changes = cache.end_list();
    assert_eq!(changes.iter().map(|change| &change.key).collect::<Vec<_>>(), [&newer, &older]);
    assert!(cache.get(&older).is_some() && cache.get(&newer).is_none());
}

#[test]
fn a_list_that_breaks_off_shows_nothing_new() {
    let mut cache = ObjectCache::default();
    cache.begin_list();
    cache.put(key(), Version(3), "of the first try");
    cache.begin_list();
    assert_eq!(cache.end_list(), []);
    assert_eq!(cache.get(&key()), None);
}

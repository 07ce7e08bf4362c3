//! Events between the snapshot of a decision and the moment at which the index notes the decision.

use super::*;

fn beating() -> (World, Index) {
    let (world, mut index) = (World::new().published("192.0.2.1"), index());
    index.observe("shop", beat("vm-1", 1, 1), at(1000));
    assert!(world.commit(&mut index, at(1000)));
    (world, index)
}

#[test]
fn a_beat_before_a_prune_is_committed_stops_it() {
    let (world, mut index) = beating();
    index.confirm(&key("greeter.vm-1"), found(&beat("vm-1", 1, 1)), at(31_000), at(31_001));
    let verdicts = world.decide(&index, at(31_001));
    assert_eq!(verdicts[0].state.as_str(), "Expired");
    // The record is still quiet from its last decision, so this beat wakes no registration.
    assert_eq!(index.observe("shop", beat("vm-1", 2, 2), at(31_002)).wake, []);
    let result = commit(&mut index, &verdicts, at(31_003));
    assert_eq!(result, CommitResult::Overtaken, "the decision must be taken again");
    assert_eq!(only(&index).expired_at, None);
    assert_eq!(line(&world.one(&index, at(31_003))), "Ready Beating: ");
    assert!(world.commit(&mut index, at(31_003)));
}

#[test]
fn a_beat_before_lateness_is_committed_asks_for_a_new_decision_soon() {
    let (world, mut index) = beating();
    let verdicts = world.decide(&index, at(21_000));
    assert_eq!(verdicts[0].reason.as_str(), "BeatOverdue");
    assert_eq!(index.observe("shop", beat("vm-1", 2, 2), at(21_001)).wake, []);
    assert_eq!(commit(&mut index, &verdicts, at(21_002)), CommitResult::AcceptedForNow);
    let back = index.observe("shop", beat("vm-1", 3, 3), at(21_003));
    assert_eq!(back.wake, [key("greeter")], "a beat that arrives now counts");
}

#[test]
fn a_beat_of_an_unpublished_instance_leaves_the_decision_valid_and_wakes_the_next_one() {
    let (mut world, mut index) = beating();
    index.confirm(&key("greeter.vm-1"), found(&beat("vm-1", 1, 1)), at(31_000), at(31_001));
    assert!(world.commit(&mut index, at(31_001)));
    world.published.clear();
    let verdicts = world.decide(&index, at(32_000));
    assert_eq!(index.observe("shop", beat("vm-1", 2, 2), at(32_001)).wake, [key("greeter")]);
    assert_eq!(commit(&mut index, &verdicts, at(32_002)), CommitResult::Accepted);
    assert_eq!(only(&index).expired_at, None, "it is not decided to be dead");
    assert_eq!(line(&world.one(&index, at(32_003))), "Ready Beating: ");
}

#[test]
fn a_beat_that_changes_nothing_leaves_the_decision_valid() {
    let (world, mut index) = beating();
    let verdicts = world.decide(&index, at(2000));
    index.observe("shop", beat("vm-1", 2, 2), at(2001));
    assert_eq!(commit(&mut index, &verdicts, at(2002)), CommitResult::Accepted);
    assert!(world.commit(&mut index, at(2003)), "and so does nothing at all");
}

#[test]
fn a_decision_is_valid_although_deleted_instances_have_no_verdict() {
    let (world, mut index) = beating();
    let world = world.pod("done-1", {
        let mut pod = ready_pod("done-1", &["10.0.0.9"]);
        pod["status"]["phase"] = json!("Succeeded");
        pod
    });
    index.observe("shop", pod_beat("done-1", 1, 2), at(1500));
    let mut deleting = beat("vm-2", 1, 3);
    deleting.content.deleting = true;
    index.observe("shop", deleting, at(1500));
    assert_eq!(world.decide(&index, at(2000)).len(), 1);
    assert!(world.commit(&mut index, at(2000)), "or it would be taken again for ever");
}

#[test]
fn a_lease_that_came_or_went_in_between_has_woken_the_registration_itself() {
    let (world, mut index) = beating();
    let verdicts = world.decide(&index, at(2000));
    assert_eq!(index.observe("shop", beat("vm-2", 1, 2), at(2001)), woken(true));
    assert_eq!(commit(&mut index, &verdicts, at(2002)), CommitResult::Accepted);

    let verdicts = world.decide(&index, at(3000));
    let absent = index.confirm(&key("greeter.vm-1"), LiveRead::Absent, at(3000), at(3001));
    assert_eq!(absent, woken(false));
    let result = commit(&mut index, &verdicts, at(3002));
    assert_eq!(result, CommitResult::Overtaken, "a verdict without its Lease never stands");
}

#[test]
fn an_edit_of_ttl_does_not_revive_an_expired_instance() {
    let (mut world, mut index) = beating();
    index.confirm(&key("greeter.vm-1"), found(&beat("vm-1", 1, 1)), at(31_000), at(31_001));
    assert!(world.commit(&mut index, at(31_001)));
    world.ttl.set(std::time::Duration::from_secs(3600), at(32_000));
    assert_eq!(world.one(&index, at(32_000)).state.as_str(), "Expired");
    assert!(world.commit(&mut index, at(32_000)));
    assert_eq!(only(&index).expired_at, Some(at(31_001)), "since when, not when last decided");
    index.observe("shop", beat("vm-1", 2, 2), at(33_000));
    assert_eq!(line(&world.one(&index, at(33_000))), "Ready Beating: ");
}

#[test]
fn a_beat_while_cordoned_or_rejected_wakes_no_registration() {
    for cordoned in [true, false] {
        let (world, mut index) = (World::new(), index());
        let say = |renewed, version| {
            let mut beat = beat("vm-1", renewed, version);
            match cordoned {
                true => beat.content.cordoned = Some(String::new()),
                false => beat.content.holder = None,
            }
            beat
        };
        index.observe("shop", say(1, 1), at(5));
        assert!(world.commit(&mut index, at(6)));
        let observed = index.observe("shop", say(2, 2), at(7));
        let since = Some(std::time::Duration::from_millis(2));
        assert_eq!(observed, Observed { beat: true, since, wake: vec![] }, "cordoned: {cordoned}");
    }
}

#[test]
fn a_grant_at_a_cold_start_outlives_the_address_in_the_slices() {
    let mut index = inherited(&[beat("vm-1", 1, 1)]);
    let world = World::new().published("192.0.2.1");
    assert!(world.commit(&mut index, at(1)));
    assert_eq!(World::new().one(&index, at(2)).state.as_str(), "Ready", "it has its ttl");
    let fresh = inherited(&[beat("vm-1", 1, 1)]);
    assert_eq!(World::new().one(&fresh, at(2)).state.as_str(), "Waiting", "never published");
}

#[test]
fn a_beat_of_one_that_goes_counts_more_than_one_of_another_that_is_late() {
    for (comes_back, result) in
        [(false, CommitResult::AcceptedForNow), (true, CommitResult::Overtaken)]
    {
        let (world, mut index) = beating();
        let world = world.published("192.0.2.7");
        let other = |renewed, version| {
            let mut other = beat("vm-0", renewed, version);
            other.content.addresses = vec!["192.0.2.7".into()];
            other
        };
        index.observe("shop", other(1, 2), at(10_000));
        assert!(world.commit(&mut index, at(10_000)));
        index.confirm(&key("greeter.vm-1"), found(&beat("vm-1", 1, 1)), at(31_000), at(31_001));
        let verdicts = world.decide(&index, at(31_001));
        let reasons: Vec<_> = verdicts.iter().map(|verdict| verdict.reason.as_str()).collect();
        assert_eq!(reasons, ["BeatOverdue", "TTLPassed"]);
        index.observe("shop", other(2, 3), at(31_002));
        if comes_back {
            index.observe("shop", beat("vm-1", 2, 4), at(31_002));
        }
        assert_eq!(commit(&mut index, &verdicts, at(31_003)), result);
    }
}

#[test]
fn leases_whose_instances_stand_in_another_order_are_found_all_the_same() {
    let (world, mut index) = beating();
    let mut misnamed = beat("vm-2", 1, 2);
    misnamed.lease = "alien.vm-2".to_owned();
    index.observe("shop", misnamed, at(1500));
    index.observe("shop", beat("aaa", 1, 3), at(1500));
    let verdicts = world.decide(&index, at(2000));
    let names: Vec<_> = verdicts.iter().map(|verdict| &*verdict.instance).collect();
    assert_eq!(names, ["aaa", "lease/alien.vm-2", "vm-1"], "by Lease the second is the first");
    assert_eq!(commit(&mut index, &verdicts, at(2000)), CommitResult::Accepted);
    let mut noted = index.records_of(&key("greeter"));
    assert!(noted.iter().all(|record| record.expired_at.is_none()));
    noted.retain(|record| record.published);
    let noted: Vec<_> = noted.iter().map(|record| &*record.lease).collect();
    assert_eq!(noted, ["greeter.aaa", "greeter.vm-1"], "whatever was passed over on the way");
    assert_eq!(
        index.observe("shop", beat("vm-1", 2, 4), at(2001)).wake,
        [],
        "it was noted as quiet"
    );
}

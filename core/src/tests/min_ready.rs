//! protection.minReady (L7).

use super::*;

/// A registration with this minReady. The last beats of vm-1, vm-2 and vm-3 were at 1, 2 and 3 s. All three are
/// published, and their silence was confirmed long after.
fn silent(min_ready: usize) -> (World, Index) {
    let mut world = World::new();
    world.registration.min_ready = min_ready;
    let mut index = index();
    for n in 1..=3_u64 {
        let name = format!("vm-{n}");
        let address = format!("192.0.2.{n}");
        let mut beat = beat(&name, 1, 1);
        beat.content.addresses = vec![address.as_str().into()];
        index.observe("shop", beat.clone(), at(n * 1000));
        index.confirm(&lease_key(&name), LiveRead::Found(beat), at(60_000), at(60_000));
        world = world.published(&address);
    }
    (world, index)
}

fn lease_key(instance: &str) -> Key {
    Key::new("shop", format!("greeter.{instance}"))
}

fn states(world: &World, index: &Index) -> Vec<String> {
    world
        .decide(index, at(60_000))
        .iter()
        .map(|verdict| verdict.state.as_str().to_owned())
        .collect()
}

#[test]
fn without_protection_silence_prunes_them_all() {
    let (world, index) = silent(0);
    assert_eq!(states(&world, &index), ["Expired", "Expired", "Expired"]);
}

#[test]
fn silence_never_prunes_below_min_ready_and_those_that_beat_last_are_kept() {
    let (world, index) = silent(2);
    assert_eq!(states(&world, &index), ["Expired", "Held", "Held"]);
    let verdicts = world.decide(&index, at(60_000));
    assert_eq!(
        line(&verdicts[1]),
        "Held Protected: no beat for its ttl of 30s; kept, because spec.protection.minReady is 2"
    );
}

#[test]
fn while_nothing_may_be_added_an_instance_that_is_not_published_does_not_count() {
    let (mut world, mut index) = silent(2);
    let mut returned = beat("vm-4", 1, 1);
    returned.content.addresses = vec!["192.0.2.4".into()];
    index.observe("shop", returned, at(59_000));
    assert_eq!(states(&world, &index), ["Expired", "Expired", "Held", "Ready"]);
    world.frozen = Some(Earlier::default());
    assert_eq!(states(&world, &index), ["Expired", "Held", "Held", "Ready"]);
}

#[test]
fn a_beat_of_one_that_protection_keeps_leaves_the_decision_about_others_standing() {
    let (world, mut index) = silent(2);
    let _ = world.commit(&mut index, at(59_000));
    let verdicts = world.decide(&index, at(60_000));
    let mut kept = beat("vm-3", 2, 2);
    kept.content.addresses = vec!["192.0.2.3".into()];
    index.observe("shop", kept, at(60_001));
    assert_ne!(commit(&mut index, &verdicts, at(60_002)), CommitResult::Overtaken);
}

#[test]
fn a_held_instance_is_pruned_as_soon_as_enough_others_are_ready() {
    let (world, mut index) = silent(2);
    assert!(world.commit(&mut index, at(60_000)));
    let mut back = beat("vm-1", 2, 2);
    back.content.addresses = vec!["192.0.2.1".into()];
    let observed = index.observe("shop", back, at(60_000));
    assert_eq!(observed.wake, [key("greeter")], "its return concerns the ones that are held");
    assert_eq!(states(&world, &index), ["Ready", "Expired", "Held"]);
}

#[test]
fn protection_revives_no_instance_and_overrules_no_cordon() {
    let (world, mut index) = silent(0);
    assert!(world.commit(&mut index, at(60_000)));
    let (protected, _) = silent(3);
    assert_eq!(states(&protected, &index), ["Expired", "Expired", "Expired"], "pruned before");

    let (world, mut index) = silent(3);
    let mut cordoned = beat("vm-3", 1, 2);
    cordoned.content.addresses = vec!["192.0.2.3".into()];
    cordoned.content.cordoned = Some("bad disk".to_owned());
    index.observe("shop", cordoned, at(60_000));
    assert_eq!(states(&world, &index), ["Held", "Held", "Cordoned"]);
}

//! The simulation of carriers: it plays random schedules of faults on virtual time against the state machines of the
//! gateway and of the operator, as they ship (G1–G6, G10–G12).
//!
//! It plays gateways, replicas and instances as processes with clocks of their own, the streams between them, and the
//! election's Lease. Each check is a promise:
//!
//! * P1: no instance is pruned within a ttl of a beat that was answered 200.
//! * L3, L6: a living instance is never pruned, because it tries all the time and only its ways are broken.
//! * P2: without faults, a dead instance is pruned at once. After all faults, the dead are gone and the living are
//!   published.
//! * No beat revives an instance long after its death.

#[path = "../../../tests/simulation/random.rs"]
#[expect(dead_code, reason = "the other simulation uses the rest")]
mod random;

mod api;
mod check;
mod client;
mod deciding;
mod fault;
mod gateways;
mod replica;
mod rules;
mod streams;
mod world;

use rules::Without;
use world::World;

fn schedules() -> u64 {
    let wanted = std::env::var("BEATKEEPER_CARRIER_SCHEDULES").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(400)
}

/// The first violation among these seeds.
fn first_violation(seeds: impl Iterator<Item = u64>, without: Without) -> Option<(u64, String)> {
    seeds.into_iter().find_map(|seed| Some((seed, World::play(seed, without).err()?)))
}

#[test]
fn no_schedule_of_faults_breaks_a_promise() {
    let found = first_violation(0..schedules(), Without::Nothing);
    assert_eq!(found, None, "play it alone with BEATKEEPER_CARRIER_SEED");
}

#[test]
#[ignore = "plays one seed and prints what happens: for a person"]
fn one_seed() {
    let seed = std::env::var("BEATKEEPER_CARRIER_SEED").expect("a seed").parse().expect("a number");
    let without = std::env::var("BEATKEEPER_CARRIER_WITHOUT").unwrap_or_default();
    let without = Without::ALL.into_iter().find(|rule| format!("{rule:?}") == without);
    let played = World::play_aloud(seed, without.unwrap_or_default());
    println!("{played:?}");
}

/// A schedule for each rule that breaks a promise if the rule is left out, and none if it is not.
const NEEDED: [(Without, u64); 8] = [
    (Without::Acknowledgement, 18),
    (Without::Echo, 1770),
    (Without::Epochs, 968),
    (Without::ProvenPath, 15),
    (Without::List, 121),
    (Without::Loss, 172),
    (Without::Memory, 0),
    (Without::OldVersions, 8),
];

#[test]
fn each_rule_that_is_left_out_is_found() {
    for (without, seed) in NEEDED {
        let broken = World::play(seed, without);
        assert!(
            broken.is_err(),
            "{without:?}: seed {seed} breaks nothing; find_the_seeds finds others"
        );
        let whole = World::play(seed, Without::Nothing);
        assert!(whole.is_ok(), "seed {seed} breaks a promise in any case: {whole:?}");
    }
}

#[test]
#[ignore = "finds a seed for each rule: for a person, when the simulation has changed"]
fn find_the_seeds() {
    let wanted = std::env::var("BEATKEEPER_CARRIER_WITHOUT").unwrap_or_default();
    for without in Without::ALL {
        if wanted.is_empty() || format!("{without:?}") == wanted {
            let found = first_violation(0..schedules() * 10, without);
            println!("{without:?}: {found:?}");
        }
    }
}

//! The simulation: it plays random schedules of faults on virtual time against the operator that ships.
//! `docs/simulation.md` describes what is modelled and what is checked.

mod check;
mod connection;
mod entropy;
mod executor;
mod fate;
mod fault;
mod network;
mod object;
mod random;
mod replica;
mod rules;
mod run;
mod server;
mod store;
mod watches;
mod wire;
mod workload;

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use rules::Without;
use run::{Story, play, play_story};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Seeds that once found a violation, each with a note on what it was. They are played first.
const CORPUS: &str = include_str!("corpus.txt");

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

fn corpus() -> Vec<u64> {
    CORPUS
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| {
            line.split_whitespace().next().and_then(|seed| seed.parse().ok()).expect("a seed")
        })
        .collect()
}

/// The totals of many schedules.
#[derive(Debug, Default)]
struct Sum {
    schedules: AtomicU64,
    seconds: AtomicU64,
    prunes: AtomicU64,
    /// How many decisions were made of what has changed. Each was compared with one about all instances.
    kept: AtomicU64,
    /// How many plans were. Each was compared with one for everything.
    kept_plans: AtomicU64,
    /// The first seed that failed, plus one.
    failed: AtomicU64,
}

/// Plays seeds from `first` on, on all CPU cores, until `go_on` returns false or a schedule violates a promise.
fn play_many(first: u64, without: Without, go_on: impl Fn(u64) -> bool + Sync) -> Sum {
    let (sum, next) = (Sum::default(), AtomicU64::new(first));
    // With this variable set, the run reports every failing seed and does not stop at the first one.
    let keep_going = std::env::var_os("BEATKEEPER_SIMULATION_KEEP_GOING").is_some();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if (sum.failed.load(Relaxed) != 0 && !keep_going) || !go_on(seed) {
                return;
            }
            let outcome = play(seed, without, false);
            sum.schedules.fetch_add(1, Relaxed);
            sum.seconds.fetch_add(outcome.millis / 1000, Relaxed);
            sum.prunes.fetch_add(outcome.prunes, Relaxed);
            sum.kept.fetch_add(outcome.kept, Relaxed);
            sum.kept_plans.fetch_add(outcome.kept_plans, Relaxed);
            if let Some(why) = outcome.violation {
                println!("seed {seed}: {why}");
                sum.failed.store(seed + 1, Relaxed);
            }
        }
    };
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    sum
}

fn assert_sound(sum: &Sum) {
    let failed = sum.failed.load(Relaxed);
    assert!(
        failed == 0,
        "replay with: BEATKEEPER_SIMULATION_SEED={} cargo test --test simulation replay -- --nocapture",
        failed.wrapping_sub(1)
    );
}

fn report(sum: &Sum, started: Instant) {
    let (schedules, took) = (sum.schedules.load(Relaxed), started.elapsed());
    println!(
        "{schedules} schedules, {} s of their time, {} prunes, {} decisions and {} plans of what had changed, in {:.1} s: {:.0} a second",
        sum.seconds.load(Relaxed),
        sum.prunes.load(Relaxed),
        sum.kept.load(Relaxed),
        sum.kept_plans.load(Relaxed),
        took.as_secs_f64(),
        f64::from(u32::try_from(schedules).unwrap_or(u32::MAX)) / took.as_secs_f64().max(0.001),
    );
}

#[test]
fn what_was_found_once_is_not_found_again() {
    for seed in corpus() {
        assert_eq!(play(seed, Without::Nothing, false).violation, None, "seed {seed}");
    }
}

#[test]
fn whatever_happens_the_living_stay_and_the_dead_leave() {
    let count = number("BEATKEEPER_SIMULATION_SCHEDULES").unwrap_or(10_000);
    let first = number("BEATKEEPER_SIMULATION_FIRST").unwrap_or(1);
    let started = Instant::now();
    let sum = play_many(first, Without::Nothing, |seed| seed < first + count);
    report(&sum, started);
    assert_sound(&sum);
    assert!(sum.kept.load(Relaxed) > 0, "no decision was made of what had changed");
    assert!(sum.kept_plans.load(Relaxed) > 0, "no plan was made of what had changed");
}

#[test]
fn a_store_that_goes_back_in_the_middle_of_an_adoption_loses_no_address() {
    for seed in 1..=8 {
        for at_write in 1..=12 {
            let story = Story::AdoptionLost { at_write };
            let outcome = play_story(seed, story, Without::Nothing, false);
            assert_eq!(outcome.violation, None, "seed {seed}, {story:?}");
        }
    }
}

/// `make soak`: runs for as long as asked, with seeds that no earlier run has played.
#[test]
#[ignore = "runs until it is stopped"]
fn soak() {
    let seconds =
        number("BEATKEEPER_SIMULATION_SECONDS").map_or(Duration::MAX, Duration::from_secs);
    let first = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() * 100_000);
    let started = Instant::now();
    let mut next = first;
    while started.elapsed() < seconds {
        let pause = Instant::now();
        let sum = play_many(next, Without::Nothing, |_| {
            pause.elapsed() < Duration::from_secs(10) && started.elapsed() < seconds
        });
        report(&sum, pause);
        assert_sound(&sum);
        next += 1_000_000;
    }
}

#[test]
fn replay() {
    let Some(seed) = number("BEATKEEPER_SIMULATION_SEED") else { return };
    let outcome = play(seed, Without::Nothing, true);
    outcome.trace.iter().for_each(|line| println!("{line}"));
    assert_eq!(outcome.violation, None);
}

#[test]
fn the_same_seed_plays_the_same_schedule() {
    for seed in [3, 7, 36, 66] {
        assert_eq!(
            play(seed, Without::Nothing, true).trace,
            play(seed, Without::Nothing, true).trace
        );
    }
}

/// A missing rule must be noticed within this many schedules.
const NOTICED_WITHIN: u64 = 2000;

fn assert_noticed(without: Without, promises: &[&str]) {
    for seed in 1..=NOTICED_WITHIN {
        if let Some(why) = play(seed, without, false).violation {
            println!("{without:?}: seed {seed}: {why}");
            assert!(promises.iter().any(|promise| why.starts_with(promise)), "{why}");
            return;
        }
    }
    panic!("{without:?} was not noticed");
}

#[test]
fn without_the_moments_of_l1_the_simulation_finds_a_violation() {
    assert_noticed(Without::SeenMoments, &["P1", "P2", "it does not"]);
}

#[test]
fn without_the_live_reads_of_l2_the_simulation_finds_a_violation() {
    assert_noticed(Without::LiveReads, &["P1", "P2"]);
}

#[test]
fn without_the_probes_of_l3_the_simulation_finds_a_violation() {
    assert_noticed(Without::Probes, &["P1"]);
}

#[test]
fn without_the_doubt_of_l4_the_simulation_finds_a_violation() {
    assert_noticed(Without::DoubtOfDeletions, &["P1"]);
}

#[test]
fn without_the_grace_of_l5_the_simulation_finds_a_violation() {
    assert_noticed(Without::Grace, &["P1"]);
}

#[test]
fn without_the_memory_of_l5_the_simulation_finds_a_violation() {
    assert_noticed(Without::Memory, &["P2"]);
}

#[test]
fn without_the_guard_of_l6_the_simulation_finds_a_violation() {
    assert_noticed(Without::Guard, &["L6"]);
}

#[test]
fn without_the_protection_of_l7_the_simulation_finds_a_violation() {
    assert_noticed(Without::Protection, &["L7"]);
}

#[test]
fn without_the_history_of_l8_the_simulation_finds_a_violation() {
    assert_noticed(Without::TtlHistory, &["P1"]);
}

#[test]
fn without_reading_the_missing_first_the_simulation_finds_a_violation() {
    assert_noticed(Without::TheMissing, &["P2"]);
}

#[test]
fn without_noticing_that_the_store_went_back_the_simulation_finds_a_violation() {
    assert_noticed(Without::Rollbacks, &["P1", "P2", "P4", "it does not"]);
}

//! The simulation: random schedules of everything that goes wrong, on virtual time, against the real
//! core. `docs/simulation.md` tells what is modelled and what is checked.

mod api;
mod check;
mod controller;
mod executor;
mod fault;
mod network;
mod object;
mod random;
mod rules;
mod run;
mod workload;

use rules::Without;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn whatever_happens_the_living_stay_and_the_dead_leave() {
    let count = number("BEATKEEPER_SIMULATION_SCHEDULES", 100);
    let first = number("BEATKEEPER_SIMULATION_FIRST", 1);
    let started = std::time::Instant::now();
    let mut bad = 0;
    let (mut steps, mut prunes, mut millis) = (0, 0, 0);
    for seed in first..first + count {
        let outcome = run::play(seed, Without::Nothing, false);
        steps += outcome.steps;
        prunes += outcome.prunes;
        millis += outcome.millis;
        if let Some(why) = outcome.violation {
            println!("seed {seed}: {why}");
            bad += 1;
        }
    }
    println!("{bad} bad of {count}, {steps} steps, {prunes} prunes, {} s virtual, {:?}", millis / 1000, started.elapsed());
    assert_eq!(bad, 0);
}

#[test]
fn replay() {
    let Some(seed) = std::env::var("BEATKEEPER_SIMULATION_SEED").ok().and_then(|text| text.parse().ok()) else {
        return;
    };
    let outcome = run::play(seed, Without::Nothing, true);
    outcome.trace.iter().for_each(|line| println!("{line}"));
    assert_eq!(outcome.violation, None);
}

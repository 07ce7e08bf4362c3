//! Runs the core for an hour of virtual time with up to a million instances. It checks that the core prunes exactly
//! the instances that it must, and prints as CSV whether one core can keep up.

use std::time::Duration;

use anyhow::ensure;
use beatkeeper_bench::hour::{Behaviour, Hour, Played};
use beatkeeper_bench::instances::{Instances, Size};
use clap::Parser;

const HOUR: u64 = 3_600;

/// How many instances in how many services, how they behave, and for how many seconds. Each of a million instances
/// beats once a minute, ten times as often as docs/scaling.md recommends. The services of the last line are so large
/// that each death makes the core check a thousand instances.
const RUNS: [(usize, usize, Behaviour, u64); 4] = [
    (1_000, 10, Behaviour { ttl: 30, interval: 10, deaths: 5 }, HOUR),
    (100_000, 1_000, Behaviour { ttl: 30, interval: 10, deaths: 5 }, HOUR / 6),
    (1_000_000, 10_000, Behaviour { ttl: 180, interval: 60, deaths: 5 }, HOUR),
    (1_000_000, 1_000, Behaviour { ttl: 180, interval: 60, deaths: 1 }, HOUR / 6),
];

#[derive(Parser)]
struct Options {
    /// For how long at most, in seconds of virtual time.
    #[arg(long, default_value_t = HOUR)]
    seconds: u64,
    /// Leaves out the lines with more instances than this.
    #[arg(long, default_value_t = usize::MAX)]
    at_most: usize,
}

fn main() -> anyhow::Result<()> {
    let Options { seconds: longest, at_most } = Options::parse();
    println!(
        "instances,services,ttl,interval,seconds,beats,deaths,prunes,false_prunes,late_prunes,share_of_core"
    );
    for (instances, services, behaviour, seconds) in RUNS {
        let seconds = seconds.min(longest);
        if instances > at_most {
            continue;
        }
        let mut hour = Hour::new(Instances::new(Size { instances, services }), behaviour);
        hour.play(Duration::from_secs(seconds));
        let Behaviour { ttl, interval, .. } = behaviour;
        let Played { beats, births, woken, deaths, due, prunes, false_prunes, late_prunes, .. } =
            hour.played;
        let share = hour.played.spent.as_secs_f64() / seconds as f64;
        println!(
            "{instances},{services},{ttl},{interval},{seconds},{beats},{deaths},{prunes},{false_prunes},\
             {late_prunes},{share:.4}"
        );
        ensure!(false_prunes == 0, "P1: {false_prunes} were pruned that were alive");
        ensure!(late_prunes == 0, "P2: {late_prunes} were pruned after their deadline");
        ensure!(prunes == due, "P2: {due} were to be pruned and {prunes} were");
        ensure!(
            woken == births,
            "P4: {woken} beats had a decision taken, and {births} were of newcomers"
        );
    }
    Ok(())
}

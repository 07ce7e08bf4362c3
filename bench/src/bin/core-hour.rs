//! Runs the core for an hour of virtual time with up to a million instances. It checks that the core prunes exactly
//! the instances that it must, and prints as CSV whether one core can keep up.

use std::time::Duration;

use anyhow::ensure;
use beatkeeper_bench::crowd::{Crowd, Size};
use beatkeeper_bench::hour::{Habits, Hour, Played};
use beatkeeper_bench::memory::{Counting, held};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HOUR: u64 = 3_600;

/// The crowds, and for how many seconds each runs. In the crowds of a million instances, each instance beats once a
/// minute, ten times as often as docs/scaling.md recommends. One of these crowds has services so large that each
/// death makes the core check a thousand instances.
const CROWDS: [(Size, Habits, u64); 4] = [
    (Size { instances: 1_000, services: 10 }, Habits { ttl: 30, interval: 10, deaths: 5 }, HOUR),
    (
        Size { instances: 100_000, services: 1_000 },
        Habits { ttl: 30, interval: 10, deaths: 5 },
        HOUR / 6,
    ),
    (
        Size { instances: 1_000_000, services: 10_000 },
        Habits { ttl: 180, interval: 60, deaths: 5 },
        HOUR,
    ),
    (
        Size { instances: 1_000_000, services: 1_000 },
        Habits { ttl: 180, interval: 60, deaths: 1 },
        HOUR / 6,
    ),
];

#[derive(Parser)]
struct Options {
    /// For how long at most, in seconds of virtual time.
    #[arg(long, default_value_t = HOUR)]
    seconds: u64,
    /// Leaves out crowds of more instances than this.
    #[arg(long, default_value_t = usize::MAX)]
    at_most: usize,
}

fn main() -> anyhow::Result<()> {
    let Options { seconds: longest, at_most } = Options::parse();
    println!(
        "instances,services,ttl,interval,virtual_seconds,beats,nanos_per_beat,decisions,woken_decisions,deaths,prunes,\
         false_prunes,late_prunes,wall_seconds_per_virtual_second,bytes_per_instance"
    );
    for (size, habits, seconds) in CROWDS {
        let seconds = seconds.min(longest);
        if size.instances > at_most {
            continue;
        }
        let before = held();
        let crowd = Crowd::new(size);
        let bytes = held() - before;
        let mut hour = Hour::new(crowd, habits);
        hour.play(Duration::from_secs(seconds));
        let Size { instances, services } = size;
        let Habits { ttl, interval, deaths: _ } = habits;
        let Played {
            beats,
            births,
            decisions,
            woken,
            deaths,
            due,
            prunes,
            false_prunes,
            late_prunes,
            observing,
            deciding,
        } = hour.played;
        println!(
            "{instances},{services},{ttl},{interval},{seconds},{beats},{:.0},{decisions},{woken},{deaths},{prunes},{false_prunes},\
             {late_prunes},{:.4},{:.1}",
            observing.as_secs_f64() * 1e9 / beats as f64,
            (observing + deciding).as_secs_f64() / seconds as f64,
            bytes as f64 / instances as f64,
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

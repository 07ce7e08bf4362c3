//! The results of each system besides its lag.

use super::Results;
use super::table::{grouped, table, who};
use crate::statistics::{Spread, told_number};

/// Returns false removals, cost and capacity.
pub fn tell(results: &Results) -> String {
    section(
        "A part stands still while everybody is alive",
        "The process is stopped (SIGSTOP) for longer than the ttl and then goes on; the instances try to renew all the \
         time. Whoever the watcher sees removed within two ttls after that was removed falsely.",
        freezes(results),
    ) + &section(
        "Removed though they beat",
        "Instances that the watcher saw go in all other scenarios, without having died or left.",
        strays(results),
    ) + &section(
        "What it costs in steady state",
        "Each process of a system while all instances beat and nothing happens. Processor time is a share of one core. \
         Renewals are those that were answered in that time; more than are due where some had waited for their turn.",
        usages(results),
    ) + &section(
        "Renewals as fast as they are answered",
        "Further instances renew, each again as soon as it has its answer, beside those that beat as usual. Loader, \
         watcher and system share the machine. They do not do the same work: a renewal of Beatkeeper is a write that is \
         synced to the disk, one of etcd's or ZooKeeper's is kept in memory, and Redis was not persistent.",
        capacities(results),
    )
}

fn section(title: &str, about: &str, table: String) -> String {
    match table.as_str() {
        "" => String::new(),
        _ => format!(
            "## {title}\n\n{about}\n\nMade again by `make bench FULL=1 PARTS=\"peers plane\"`.\n\n{table}"
        ),
    }
}

/// Returns the summary of one figure over several runs as text.
pub fn told(figures: impl IntoIterator<Item = f64>) -> String {
    Spread::of(figures).map_or_else(String::new, |spread| spread.told(told_number))
}

fn freezes(results: &Results) -> String {
    let key = |line: &&crate::records::Freeze| {
        (line.system, line.variant.clone(), line.instances, line.part.clone())
    };
    let rows: Vec<_> = grouped(&results.freezes, key)
        .into_iter()
        .map(|((system, variant, instances, part), lines)| {
            [
                who(system, &variant),
                part,
                told(lines.iter().map(|line| line.seconds)) + " s",
                instances.to_string(),
                told(lines.iter().map(|line| f64::from(line.removed))),
            ]
        })
        .collect();
    table(["System", "What stood still", "For", "Alive", "Removed"], &rows)
}

fn strays(results: &Results) -> String {
    let strays = results.missed.iter().filter(|missed| missed.scenario == "stray");
    let key = |line: &&crate::records::Missed| (line.system, line.variant.clone(), line.instances);
    let rows: Vec<_> = grouped(strays, key)
        .into_iter()
        .map(|((system, variant, instances), lines)| {
            [who(system, &variant), instances.to_string(), lines.len().to_string()]
        })
        .collect();
    table(["System", "Instances", "Removed"], &rows)
}

fn usages(results: &Results) -> String {
    let key = |line: &&crate::records::Usage| {
        let beats = line.beats_per_second.to_bits();
        (line.system, line.variant.clone(), line.instances, beats, line.part.clone())
    };
    let rows: Vec<_> = grouped(&results.usages, key)
        .into_iter()
        .map(|((system, variant, instances, _, part), lines)| {
            let told = |figure: fn(&crate::records::Usage) -> f64| {
                told(lines.iter().map(|line| figure(line)))
            };
            [
                who(system, &variant),
                part,
                instances.to_string(),
                told(|line| line.renewals_per_second),
                told(|line| line.cpu * 100.0) + " %",
                told(|line| line.rss_mib) + " MiB",
                told(|line| line.peak_mib) + " MiB",
            ]
        })
        .collect();
    table(["System", "Process", "Instances", "Renewals/s", "CPU", "Memory", "Peak"], &rows)
}

fn capacities(results: &Results) -> String {
    let key = |line: &&crate::records::Capacity| {
        (line.system, line.variant.clone(), line.instances, line.clients)
    };
    let rows: Vec<_> = grouped(&results.capacities, key)
        .into_iter()
        .map(|((system, variant, instances, clients), lines)| {
            [
                who(system, &variant),
                instances.to_string(),
                clients.to_string(),
                told(lines.iter().map(|line| line.renewals_per_second)),
                lines.iter().map(|line| line.failures).sum::<u64>().to_string(),
            ]
        })
        .collect();
    table(["System", "Instances beside", "At a time", "Renewals/s", "Failed"], &rows)
}

//! How fast the disk of a store was while it was measured, as the store itself tells.

use std::collections::BTreeMap;

use super::Results;
use super::table::{grouped, table, who};
use crate::records::Metric;
use crate::scrape::{self, STORE};
use crate::statistics::told_seconds;

const KINDS: [(&str, &str); 2] = [
    ("fsync of the log", "etcd_disk_wal_fsync_duration_seconds"),
    ("commit of the database", "etcd_disk_backend_commit_duration_seconds"),
];

/// A table of all that etcd served, for itself or for an API server.
pub fn tell(results: &Results) -> String {
    let key = |line: &&Metric| (line.instances, line.system, line.variant.clone());
    let of_store = results.metrics.iter().filter(|line| line.part == STORE && line.phase == "end");
    let rows: Vec<_> = grouped(of_store, key)
        .into_iter()
        .flat_map(|((instances, system, variant), lines)| {
            KINDS.map(|(kind, histogram)| {
                let buckets = buckets(&lines, histogram);
                let within = |share| told_within(&buckets, share);
                let count = buckets.values().last().copied().unwrap_or_default();
                [
                    who(system, &variant),
                    instances.to_string(),
                    kind.to_owned(),
                    count.to_string(),
                    within(0.5),
                    within(0.99),
                    within(0.999),
                    within(1.0),
                ]
            })
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let headings =
        ["System", "Instances", "What", "How often", "Half within", "99 %", "99.9 %", "All"];
    "## The disk\n\n\
     What etcd, with or without an API server before it, waited for its disk in all runs: upper bounds of the buckets of its own \
     histograms. Every renewal and every change of a slice waits for the one; while the other goes on, no write does.\n\n\
     Made again by `make bench FULL=1 PARTS=\"peers plane\"`.\n\n"
        .to_owned()
        + &table(headings, &rows)
}

/// So many were not longer than a bound, by bound; the runs are added up.
fn buckets(lines: &[&Metric], histogram: &str) -> BTreeMap<u64, f64> {
    let page: String =
        lines.iter().map(|line| format!("{} {}\n", line.series, line.value)).collect();
    scrape::sums(&scrape::samples(&page), &format!("{histogram}_bucket"), ["le"])
        .into_iter()
        .filter_map(|([bound], count)| {
            // Of numbers that are not negative, the bits are in the same order.
            Some((bound.replace("+Inf", "inf").parse::<f64>().ok()?.to_bits(), count))
        })
        .collect()
}

fn told_within(buckets: &BTreeMap<u64, f64>, share: f64) -> String {
    let all = buckets.values().last().copied().unwrap_or_default();
    let bound = buckets.iter().find(|(_, count)| **count >= share * all && all > 0.0);
    bound.map_or_else(String::new, |(bound, _)| told_seconds(f64::from_bits(*bound)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Run;
    use crate::systems::Name;

    #[test]
    fn the_runs_are_added_up_and_what_others_tell_is_left_out() {
        let line = |run, part: &str, bound: &str, value| {
            let (system, variant) = (Name::Etcd, String::new());
            let run = Run { system, variant, instances: 9, beats_per_second: 3.0, run };
            let series = format!("etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"{bound}\"}}");
            Metric::of(&run, part.to_owned(), "end".to_owned(), series, value)
        };
        let metrics = vec![
            line(1, STORE, "0.001", 60.0),
            line(1, STORE, "0.5", 100.0),
            line(2, STORE, "0.001", 40.0),
            line(2, STORE, "0.5", 100.0),
            line(1, "operator", "0.001", 9e9),
        ];
        let told = tell(&Results { metrics, ..Results::default() });
        let row = "| etcd | 9 | fsync of the log | 200 | 1 ms | 500 ms | 500 ms | 500 ms |\n";
        assert!(told.contains(row), "{told}");
    }
}

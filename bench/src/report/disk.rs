//! The speed of a store's disk during the measurement, from the store's own metrics.

use std::collections::BTreeMap;

use super::Results;
use super::operator::{bound_of, bucket_of};
use super::table::{grouped, table, who};
use crate::records::{Metric, Usage};
use crate::scrape::{self, DATABASE, STORE};
use crate::statistics::{Spread, told_number, told_seconds};

const KINDS: [(&str, &str); 2] = [
    ("fsync of the log", "etcd_disk_wal_fsync_duration_seconds"),
    ("commit of the database", "etcd_disk_backend_commit_duration_seconds"),
];

/// Returns a table of every etcd, used directly or by an API server.
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
     histograms. Every renewal and every change of a slice waits for an fsync of the log; while the database commits, no \
     write is accepted.\n\n\
     Made again by `make bench FULL=1 PARTS=\"peers plane\"`.\n\n"
        .to_owned()
        + &table(headings, &rows)
        + &growth(results)
}

/// Returns by how much the database grew per beat in a steady state, without compaction.
fn growth(results: &Results) -> String {
    let size = |usage: &Usage, phase: &str| {
        let of_run = results.metrics.iter().find(|line| {
            (line.system, &line.variant, line.instances, line.run)
                == (usage.system, &usage.variant, usage.instances, usage.run)
                && line.beats_per_second.to_bits() == usage.beats_per_second.to_bits()
                && line.part == STORE
                && line.phase == phase
                && line.series == DATABASE
        });
        of_run.map(|line| line.value)
    };
    let a_beat = |usage: &&Usage| {
        let grown = size(usage, "steady ended")? - size(usage, "steady began")?;
        // The size shrinks if the database is compacted meanwhile.
        (grown >= 0.0).then(|| grown / (usage.renewals_per_second * usage.seconds))
    };
    let key = |usage: &&Usage| {
        (usage.instances, usage.beats_per_second.to_bits(), usage.system, usage.variant.clone())
    };
    let rows: Vec<_> = grouped(results.usages.iter().filter(|usage| usage.part == STORE), key)
        .into_iter()
        .filter_map(|((instances, beats, system, variant), usages)| {
            let grown = Spread::of(usages.iter().filter_map(a_beat))?;
            let beats = told_number(f64::from_bits(beats));
            Some([who(system, &variant), instances.to_string(), beats, grown.told(told_number)])
        })
        .collect();
    table(["System", "Instances", "Beats/s", "Database, bytes a beat"], &rows)
}

/// Returns the histogram's buckets, added up over the runs: for each bound, the number of values that do not exceed
/// it.
fn buckets(lines: &[&Metric], histogram: &str) -> BTreeMap<u64, f64> {
    let page: String =
        lines.iter().map(|line| format!("{} {}\n", line.series, line.value)).collect();
    scrape::sums(&scrape::samples(&page), &format!("{histogram}_bucket"), ["le"])
        .into_iter()
        .filter_map(|([bound], count)| Some((bound_of(&bound)?, count)))
        .collect()
}

fn told_within(buckets: &BTreeMap<u64, f64>, share: f64) -> String {
    bucket_of(buckets, share).map_or_else(String::new, told_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Run;
    use crate::systems::Name;

    #[test]
    fn what_a_beat_leaves_in_the_database_is_its_growth_over_the_beats_of_the_run() {
        let run = |run| {
            let (system, variant) = (Name::Beatkeeper, String::new());
            Run { system, variant, instances: 9, beats_per_second: 3.0, run }
        };
        let size = |n, phase: &str, value| {
            let [part, phase, series] = [STORE, phase, DATABASE].map(str::to_owned);
            Metric::of(&run(n), part, phase, series, value)
        };
        let usage = |n| Usage::of(&run(n), STORE.to_owned(), 10.0, 3.0, 0.1, 50.0, 50.0);
        let results = Results {
            metrics: vec![
                size(1, "steady began", 1000.0),
                size(1, "steady ended", 31_000.0),
                size(2, "steady began", 7000.0),
                size(2, "steady ended", 7000.0),
            ],
            usages: vec![usage(1), usage(2), usage(3)],
            ..Results::default()
        };
        assert!(growth(&results).contains("| beatkeeper | 9 | 3 | 500 (0–1000) |\n"));
    }

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

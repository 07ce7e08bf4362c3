//! The operator's own metrics: the lag until its write was acknowledged, its writes in steady state, and the time
//! that it spent in calls and steps while single instances died.

use std::collections::BTreeMap;

use super::Results;
use super::cost::OPERATOR;
use super::table::{grouped, table};
use crate::records::Metric;
use crate::scrape::{self, Sums};
use crate::statistics::{Spread, told_number, told_seconds};

const LAG: &str = "beatkeeper_prune_lag_seconds_bucket{le=\"";
const WRITES: &str = "beatkeeper_api_writes_total";

/// Returns a table with a row for each size.
pub fn tell(results: &Results) -> String {
    let rows: Vec<_> = grouped(told_by_it(results), crowd)
        .into_iter()
        .map(|((instances, beats, variant), lines)| {
            let runs = grouped(lines, |line| line.run);
            let told = |figure: &dyn Fn(&[&Metric]) -> Option<f64>, tell: fn(f64) -> String| {
                let figures = runs.values().filter_map(|run| figure(run));
                Spread::of(figures).map_or_else(String::new, |spread| spread.told(tell))
            };
            [
                format!("{instances} {variant}").trim_end().to_owned(),
                told_number(f64::from_bits(beats)),
                told(&|run| within(run, 0.5), told_seconds),
                told(&|run| within(run, 0.99), told_seconds),
                told(&|run| Some(writes(run, false)), told_number),
                told(&|run| Some(writes(run, true)), told_number),
            ]
        })
        .collect();
    let table = table(
        [
            "Instances",
            "Beats/s",
            "Half acknowledged within",
            "99 % within",
            "Writes in steady state",
            "To its own Lease",
        ],
        &rows,
    );
    if table.is_empty() {
        return table;
    }
    format!(
        "## What the operator counts\n\n\
         From the deadline, as the operator saw it, to the answer to the write that prunes: \
         `beatkeeper_prune_lag_seconds` \
         over all deaths of a run, single and many at once; the figures are upper bounds of its buckets. Writes are \
         all tries while all instances beat and nothing happened, but for those to its own Lease, by which it leads \
         and proves that beats can arrive.\n\nMade again by `make bench FULL=1 PARTS=\"peers plane\"`.\n\n{table}{}",
        spent(results)
    )
}

/// The calls and steps of a prune: name, histogram and its labels. The write of the status and the renewal of the
/// probe run beside it.
const SPANS: [(&str, &str, Labels); 7] = [
    ("The probe, sent ahead", CALLS, [("kind", "Lease"), ("verb", "patch")]),
    ("The live read", CALLS, [("kind", "Lease"), ("verb", "get")]),
    ("Deciding", STEPS, [("step", "decide"), ("", "")]),
    ("Planning", STEPS, [("step", "plan"), ("", "")]),
    ("Writing the slice", CALLS, [("kind", "EndpointSlice"), ("verb", "update")]),
    ("Writing the Endpoints", CALLS, [("kind", "Endpoints"), ("verb", "update")]),
    ("Writing the status", CALLS, [("kind", "ServiceRegistration"), ("verb", "patch")]),
];
type Labels = [(&'static str, &'static str); 2];
const CALLS: &str = "beatkeeper_api_call_duration_seconds";
const STEPS: &str = "beatkeeper_reconcile_duration_seconds";

/// Returns the mean and the tail of each span while single instances died and came back, for each size.
fn spent(results: &Results) -> String {
    let rows: Vec<_> = grouped(told_by_it(results), crowd)
        .into_iter()
        .map(|((instances, beats, variant), lines)| {
            let runs = grouped(lines, |line| line.run);
            let means = SPANS.map(|(_, histogram, labels)| {
                let told = |figure: &dyn Fn(&[&Metric]) -> Option<f64>| {
                    let figures = runs.values().filter_map(|run| figure(run));
                    Spread::of(figures).map(|spread| told_seconds(spread.median))
                };
                let mean = told(&|run| mean(run, histogram, labels));
                let tail = told(&|run| tail(run, histogram, labels, 0.99));
                mean.zip(tail).map_or_else(String::new, |(mean, tail)| format!("{mean}, {tail}"))
            });
            let beats = told_number(f64::from_bits(beats));
            let who = format!("{instances} {variant}");
            let mut row = vec![format!("{}, {beats} beats/s", who.trim_end())];
            row.extend(means);
            row.try_into().expect("as many as there are headings")
        })
        .collect();
    let headings: Vec<&str> =
        std::iter::once("Instances").chain(SPANS.map(|(name, ..)| name)).collect();
    let headings: [&str; SPANS.len() + 1] = headings.try_into().expect("one more");
    let rows: Vec<[String; SPANS.len() + 1]> = rows;
    format!(
        "What it spent meanwhile, while single instances died and came back: of each call and step the mean, and the upper \
         bound of the bucket that holds 99 of 100, by its histograms `{CALLS}` and `{STEPS}`. A prune takes, one after the other, the live read, a decision, a plan, and \
         the write of the slice; the Endpoints follow, then status and events.\n\n{}",
        table(headings, &rows)
    )
}

fn mean(run: &[&Metric], histogram: &str, labels: Labels) -> Option<f64> {
    let [(first, value), (second, other)] = labels;
    let key = [value.to_owned(), other.to_owned()];
    let grown = |suffix: &str| {
        grown(run, &format!("{histogram}{suffix}"), [first, second]).get(&key).copied()
    };
    let count = grown("_count")?;
    Some(grown("_sum")? / count)
}

/// Returns the bound of the smallest bucket that holds this share of all values.
fn tail(run: &[&Metric], histogram: &str, labels: Labels, share: f64) -> Option<f64> {
    let [(first, value), (second, other)] = labels;
    let buckets = grown(run, &format!("{histogram}_bucket"), [first, second, "le"]);
    let of_span = buckets.into_iter().filter(|([a, b, _], _)| a == value && b == other);
    let bounds = of_span.filter_map(|([.., bound], count)| Some((bound_of(&bound)?, count)));
    bucket_of(&bounds.collect(), share)
}

/// Returns by how much series grew while single instances died and came back.
fn grown<const LABELS: usize>(run: &[&Metric], name: &str, labels: [&str; LABELS]) -> Sums<LABELS> {
    let at = |phase: &str| {
        let lines = run.iter().filter(|line| line.phase == phase);
        let page: String = lines.map(|line| format!("{} {}\n", line.series, line.value)).collect();
        scrape::sums(&scrape::samples(&page), name, labels)
    };
    scrape::growth(&at("single began"), at("single ended"))
}

/// Returns the bits of a bucket's bound. The bits of non-negative numbers have the same order as the numbers.
pub fn bound_of(bound: &str) -> Option<u64> {
    Some(bound.replace("+Inf", "inf").parse::<f64>().ok()?.to_bits())
}

/// Returns the bound of the smallest bucket that holds this share of all values. The buckets are given by the bits
/// of their bounds.
pub fn bucket_of(buckets: &BTreeMap<u64, f64>, share: f64) -> Option<f64> {
    let all = *buckets.values().last()?;
    let bound = buckets.iter().find(|(_, count)| **count >= share * all && all > 0.0)?.0;
    Some(f64::from_bits(*bound))
}

/// Returns the key by which runs count as the same.
fn crowd(line: &&Metric) -> (u32, u64, String) {
    (line.instances, line.beats_per_second.to_bits(), line.variant.clone())
}

fn told_by_it(results: &Results) -> impl Iterator<Item = &Metric> {
    results.metrics.iter().filter(|line| line.part == OPERATOR)
}

/// Returns the bound of the smallest bucket that holds this share of all deaths.
fn within(run: &[&Metric], share: f64) -> Option<f64> {
    let at_the_end = run.iter().filter(|line| line.phase == "end");
    let buckets = at_the_end.filter_map(|line| {
        let bound = line.series.strip_prefix(LAG)?.strip_suffix("\"}")?;
        Some((bound_of(bound)?, line.value))
    });
    bucket_of(&buckets.collect(), share)
}

/// Returns the operator's writes in each steady state, except those to its own Lease.
pub fn steady_writes(results: &Results) -> Vec<f64> {
    let of_run = |line: &&Metric| (crowd(line), line.run);
    grouped(told_by_it(results), of_run).values().map(|run| writes(run, false)).collect()
}

/// Returns the number of tries to write between the beginning and the end of the steady state, either to Leases or
/// to all other kinds.
fn writes(run: &[&Metric], to_leases: bool) -> f64 {
    let at = |phase: &str| -> f64 {
        let lines = run.iter().filter(|line| {
            let is_one = line.phase == phase && line.series.starts_with(WRITES);
            is_one && line.series.contains("kind=\"Lease\"") == to_leases
        });
        lines.map(|line| line.value).sum()
    };
    at("steady ended") - at("steady began")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Run;
    use crate::systems::Name;

    fn line(phase: &str, series: &str, value: f64) -> Metric {
        let variant = String::new();
        let run =
            Run { system: Name::Beatkeeper, variant, instances: 9, beats_per_second: 3.0, run: 1 };
        Metric::of(&run, "operator".to_owned(), phase.to_owned(), series.to_owned(), value)
    }

    #[test]
    fn a_share_lies_within_the_least_bucket_that_holds_it() {
        let bucket = |bound: &str, count| line("end", &format!("{LAG}{bound}\"}}"), count);
        let lines = [bucket("0.01", 60.0), bucket("0.1", 99.0), bucket("+Inf", 100.0)];
        let lines: Vec<&Metric> = lines.iter().collect();
        assert_eq!(within(&lines, 0.5), Some(0.01));
        assert_eq!(within(&lines, 0.99), Some(0.1));
        assert_eq!(within(&lines, 1.0), Some(f64::INFINITY));
        assert_eq!(within(&[], 0.5), None);
    }

    #[test]
    fn a_mean_is_that_of_the_calls_between_two_readings() {
        let series =
            |suffix: &str, kind: &str| format!("{CALLS}{suffix}{{kind=\"{kind}\",verb=\"get\"}}");
        let lines = [
            line("single began", &series("_sum", "Lease"), 1.0),
            line("single began", &series("_count", "Lease"), 10.0),
            line("single ended", &series("_sum", "Lease"), 1.5),
            line("single ended", &series("_count", "Lease"), 110.0),
            line("single ended", &series("_sum", "Pod"), 9.0),
            line("single ended", &series("_count", "Pod"), 1.0),
        ];
        let lines: Vec<&Metric> = lines.iter().collect();
        let of = |kind, verb| mean(&lines, CALLS, [("kind", kind), ("verb", verb)]);
        assert_eq!((of("Lease", "get"), of("Lease", "patch")), (Some(0.005), None));
    }

    #[test]
    fn a_tail_is_that_of_the_calls_between_two_readings() {
        let bucket = |phase: &str, bound: &str, count| {
            let series = format!("{CALLS}_bucket{{le=\"{bound}\",kind=\"Lease\",verb=\"get\"}}");
            line(phase, &series, count)
        };
        let lines = [
            bucket("single began", "0.01", 0.0),
            bucket("single began", "+Inf", 900.0),
            bucket("single ended", "0.01", 99.0),
            bucket("single ended", "+Inf", 1000.0),
        ];
        let lines: Vec<&Metric> = lines.iter().collect();
        let of = |verb, share| tail(&lines, CALLS, [("kind", "Lease"), ("verb", verb)], share);
        assert_eq!((of("get", 0.99), of("patch", 0.99)), (Some(0.01), None));
        assert_eq!(of("get", 0.999), Some(f64::INFINITY));
    }

    #[test]
    fn only_the_writes_of_the_steady_state_count_and_those_to_leases_apart() {
        let lines = [
            line("steady began", &format!("{WRITES}{{kind=\"EndpointSlice\"}}"), 7.0),
            line("steady ended", &format!("{WRITES}{{kind=\"EndpointSlice\"}}"), 10.0),
            line("steady ended", &format!("{WRITES}{{kind=\"Lease\"}}"), 2.0),
            line("end", &format!("{WRITES}{{kind=\"EndpointSlice\"}}"), 900.0),
        ];
        let lines: Vec<&Metric> = lines.iter().collect();
        assert_eq!((writes(&lines, false), writes(&lines, true)), (3.0, 2.0));
    }
}

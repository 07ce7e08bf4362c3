//! The targets, with the measured values.

use super::Results;
use super::cost::{OPERATOR, calls_of};
use super::table::{grouped, table};
use crate::drive::SILENT;
use crate::records::Lag;
use crate::records::cost::{Expense, Takeover};
use crate::statistics::{Spread, quantile, sorted, told_number, told_seconds};
use crate::systems::Name;

/// The minimum beats per second of 10,000 instances that beat every 10 s: 1,000, less rounding.
const THOUSAND: f64 = 999.0;

/// One target.
struct Target {
    what: &'static str,
    figure: &'static str,
    /// The maximum or the minimum that is allowed.
    bound: Bound,
    tell: fn(f64) -> String,
    /// `None` if nothing was measured.
    measured: Option<f64>,
}

enum Bound {
    Most(f64),
    Least(f64),
}

impl Target {
    fn row(&self) -> [String; 5] {
        let Self { what, figure, bound, tell, measured } = self;
        let wanted = match bound {
            Bound::Most(most) => format!("≤ {}", tell(*most)),
            Bound::Least(least) => format!("≥ {}", tell(*least)),
        };
        let is_reached = measured.map(|it| match bound {
            Bound::Most(most) => it <= *most,
            Bound::Least(least) => it >= *least,
        });
        let verdict = match is_reached {
            None => "not measured",
            Some(true) => "reached",
            Some(false) => "not reached",
        };
        let measured = measured.map_or_else(String::new, tell);
        [(*what).to_owned(), (*figure).to_owned(), wanted, measured, verdict.to_owned()]
    }
}

/// Returns a table of all targets.
pub fn tell(results: &Results) -> String {
    let rows: Vec<_> = targets(results).iter().map(Target::row).collect();
    format!(
        "## Targets\n\n\
         Computed from the raw results like all else here. A p50 or p99 is the median over the runs; every other row is of \
         the worst run or try. A deadline is a ttl after the last renewal: reckoned from when it was sent, as in the tables \
         below, or from when it was answered, soon after the API server had accepted it. `not measured` is what was not run \
         in this size. [performance.md](performance.md#where-the-time-of-a-prune-goes) explains from profiles why some are not \
         reached, and what takes the time.\n\n{}",
        table(["What", "Figure", "Wanted", "Measured", ""], &rows)
    )
}

fn targets(results: &Results) -> Vec<Target> {
    use Bound::{Least, Most};
    let megabytes: fn(f64) -> String = |bytes| format!("{} MB", told_number(bytes / 1e6));
    let percent: fn(f64) -> String = |share| format!("{} %", told_number(share * 100.0));
    let of = |what, figure, bound, tell, measured| Target { what, figure, bound, tell, measured };
    let idle = "100 instances, single deaths";
    let many = "10,000 instances, 1,000 beats/s";
    let index = "The index, on one core";
    let (from_sent, from_answered) = (|lag: &Lag| lag.lag, Lag::past_answer);
    let of_single = |instances, beats, share, lag: fn(&Lag) -> f64| {
        single(
            results,
            |lag| lag.instances == instances && lag.beats_per_second >= beats,
            share,
            lag,
        )
    };
    let mut targets = vec![
        of(idle, "p50, from sent", Most(0.010), told_seconds, of_single(100, 0.0, 0.5, from_sent)),
        of(
            idle,
            "p50, from answered",
            Most(0.010),
            told_seconds,
            of_single(100, 0.0, 0.5, from_answered),
        ),
        of(idle, "p99, from sent", Most(0.020), told_seconds, of_single(100, 0.0, 0.99, from_sent)),
        of(
            idle,
            "p99, from answered",
            Most(0.020),
            told_seconds,
            of_single(100, 0.0, 0.99, from_answered),
        ),
        of(
            many,
            "p99, from sent",
            Most(0.060),
            told_seconds,
            of_single(10_000, THOUSAND, 0.99, from_sent),
        ),
        of(
            many,
            "p99, from answered",
            Most(0.060),
            told_seconds,
            of_single(10_000, THOUSAND, 0.99, from_answered),
        ),
        of("All deaths", "least lag, from sent", Least(0.0), told_seconds, least_lag(results)),
    ];
    for (what, variant) in [
        ("3,000 at once, in one service", ""),
        ("3,000 at once, in 100 services", "in 100 services"),
    ] {
        let figure = "the last gone, past the last deadline";
        targets.push(of(what, figure, Most(0.5), told_seconds, last_of_many(results, variant)));
    }
    for (what, variant) in [
        ("10,000 in one service, 1,000 beats/s", ""),
        ("10,000 in 100 services, 1,000 beats/s", "in 100 services"),
    ] {
        let at_a_thousand = || at_a_thousand(results, variant);
        let answered = least(at_a_thousand().map(|used| used.renewals));
        let mebibyte = f64::from(1 << 20);
        targets.extend([
            // Some beats are still under way when the count ends, and a few are retried.
            of(what, "beats answered a second, of 1,000", Least(990.0), told_number, answered),
            of(
                what,
                "memory (RSS)",
                Most(60e6),
                megabytes,
                worst(at_a_thousand().map(|used| used.rss_mib * mebibyte)),
            ),
            of(
                what,
                "memory, the peak until then",
                Most(60e6),
                megabytes,
                worst(at_a_thousand().map(|used| used.peak_mib * mebibyte)),
            ),
            of(
                what,
                "CPU, of a core",
                Most(0.15),
                percent,
                worst(at_a_thousand().map(|used| used.cpu)),
            ),
        ]);
    }
    targets.extend([
        of(
            "Steady state",
            "writes, but for probes",
            Most(0.0),
            told_number,
            steady_writes(results),
        ),
        of(index, "beats taken in a second", Least(1e6), told_number, beats_of_core(results)),
        of(index, "bytes an instance", Most(1000.0), told_number, bytes_of_core(results)),
        of(
            "Start with 10,000 instances",
            "until it publishes",
            Most(5.0),
            told_seconds,
            slowest(results, "start", |line| (line.instances >= 10_000).then_some(line.published)),
        ),
        of(
            "The leader is killed",
            "until the other one leads",
            Most(5.0),
            told_seconds,
            slowest(results, "kill", |line| Some(line.leads)),
        ),
        of(
            "The leader is killed",
            "until the other one publishes",
            Most(5.0),
            told_seconds,
            slowest(results, "kill", |line| Some(line.published)),
        ),
        of(
            "The leader is asked to end",
            "until the other one leads",
            Most(1.0),
            told_seconds,
            slowest(results, "term", |line| Some(line.leads)),
        ),
        of(
            "The leader is asked to end",
            "until the other one publishes",
            Most(1.0),
            told_seconds,
            slowest(results, "term", |line| Some(line.published)),
        ),
        of(
            "All scenarios but the freezes",
            "living instances removed",
            Most(0.0),
            told_number,
            lost(results),
        ),
    ]);
    targets
}

fn ours<'a>(results: &'a Results, scenario: &'a str) -> impl Iterator<Item = &'a Lag> {
    results
        .lags
        .iter()
        .filter(move |lag| lag.system == Name::Beatkeeper && lag.scenario == scenario)
}

/// Returns the figure as in the table of single deaths: the median over the runs. If the instances are spread over
/// services in several ways, it is the worst of these medians.
fn single(
    results: &Results,
    counts: impl Fn(&Lag) -> bool,
    share: f64,
    figure: fn(&Lag) -> f64,
) -> Option<f64> {
    let lags = ours(results, "single").filter(|lag| counts(lag));
    let median = |lags: Vec<&Lag>| {
        let runs = grouped(lags, |lag| lag.run).into_values();
        let figures =
            runs.filter_map(|run| quantile(&sorted(run.iter().map(|lag| figure(lag))), share));
        Spread::of(figures).map(|spread| spread.median)
    };
    worst(grouped(lags, |lag| lag.variant.clone()).into_values().filter_map(median))
}

fn least_lag(results: &Results) -> Option<f64> {
    let scenarios = ["single", "mass", "churn, silent", SILENT].iter();
    least(scenarios.flat_map(|scenario| ours(results, scenario)).map(|lag| lag.lag))
}

/// Returns the longest time from the last deadline to the last observation, of the runs in which at least 3000 died.
fn last_of_many(results: &Results, variant: &str) -> Option<f64> {
    let of_run = |lag: &&Lag| (lag.instances, lag.beats_per_second.to_bits(), lag.run);
    let lags = ours(results, "mass").filter(|lag| lag.variant == variant);
    let runs = grouped(lags, of_run);
    worst(runs.into_values().filter(|run| run.len() >= 3000).filter_map(|run| {
        let deadline = worst(run.iter().map(|lag| lag.deadline))?;
        Some(worst(run.iter().map(|lag| lag.seen))? - deadline)
    }))
}

/// The resources that the operator used in a steady state.
struct Used {
    renewals: f64,
    cpu: f64,
    rss_mib: f64,
    peak_mib: f64,
}

/// Returns the usage with 10,000 instances at 1,000 beats a second, in any part of the benchmark.
fn at_a_thousand(results: &Results, variant: &str) -> impl Iterator<Item = Used> {
    let is_one = move |instances: u32, beats: f64, of: &str| {
        instances >= 10_000 && beats >= THOUSAND && of == variant
    };
    let alone = steady(results)
        .filter(move |line| is_one(line.instances, line.beats_per_second, &line.variant))
        .map(|line| Used {
            renewals: line.renewals_per_second,
            cpu: line.cpu,
            rss_mib: line.rss_mib,
            peak_mib: line.peak_mib,
        });
    let beside_deaths = results
        .usages
        .iter()
        .filter(|line| line.system == Name::Beatkeeper && line.part == OPERATOR)
        .filter(move |line| is_one(line.instances, line.beats_per_second, &line.variant))
        .map(|line| Used {
            renewals: line.renewals_per_second,
            cpu: line.cpu,
            rss_mib: line.rss_mib,
            peak_mib: line.peak_mib,
        });
    alone.chain(beside_deaths)
}

fn steady(results: &Results) -> impl Iterator<Item = &Expense> {
    results.expenses.iter().filter(|line| line.part == OPERATOR && line.scenario == "steady")
}

fn steady_writes(results: &Results) -> Option<f64> {
    let alone = steady(results).map(|line| {
        let writes = calls_of(results, line).filter(|call| call.writes() && !call.is_a_probe());
        writes.map(|call| call.count).sum()
    });
    worst(alone.chain(super::operator::steady_writes(results)))
}

/// Returns the beats per second for the slowest size.
fn beats_of_core(results: &Results) -> Option<f64> {
    let costs = super::core::beat_costs(&results.samples);
    worst(costs.iter().filter_map(|cost| quantile(cost, 0.5))).map(|seconds| 1.0 / seconds)
}

fn bytes_of_core(results: &Results) -> Option<f64> {
    worst(results.memory.iter().map(super::core::Memory::per_instance))
}

fn slowest(results: &Results, how: &str, figure: impl Fn(&Takeover) -> Option<f64>) -> Option<f64> {
    worst(results.takeovers.iter().filter(|line| line.how == how).filter_map(figure))
}

/// Returns the number of instances that were removed without having died or left.
fn lost(results: &Results) -> Option<f64> {
    let ours = |system: Name| system == Name::Beatkeeper;
    let is_measured = results.lags.iter().any(|lag| ours(lag.system));
    let strays = results.missed.iter().filter(|it| ours(it.system) && it.scenario == "stray");
    is_measured.then(|| strays.count() as f64)
}

/// Returns the smallest figure, or `None` if there are none.
fn least(figures: impl IntoIterator<Item = f64>) -> Option<f64> {
    figures.into_iter().min_by(f64::total_cmp)
}

/// Returns the largest figure, or `None` if there are none.
fn worst(figures: impl IntoIterator<Item = f64>) -> Option<f64> {
    figures.into_iter().max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::cost::Call;
    use crate::records::{Missed, Run, Usage};

    fn run(instances: u32, run: u32) -> Run {
        let (system, variant) = (Name::Beatkeeper, String::new());
        Run { system, variant, instances, beats_per_second: f64::from(instances) / 10.0, run }
    }

    fn verdicts(results: &Results, what: &str) -> Vec<[String; 3]> {
        let rows = targets(results).into_iter().map(|target| target.row());
        let of_what = rows.filter(|[name, ..]| name == what);
        of_what.map(|[_, _, wanted, measured, verdict]| [wanted, measured, verdict]).collect()
    }

    #[test]
    fn without_results_nothing_is_reached_and_nothing_missed() {
        let rows: Vec<_> = targets(&Results::default()).iter().map(Target::row).collect();
        assert_eq!(rows.len(), 26);
        for [.., measured, verdict] in rows {
            assert_eq!((measured.as_str(), verdict.as_str()), ("", "not measured"));
        }
    }

    #[test]
    fn a_lag_is_the_median_of_the_runs_and_one_early_death_is_one_too_many() {
        let lag = |run: &Run, lag| {
            Lag::of(run, "single".to_owned(), 1, 0.0, 0.002, 10.0, 10.0 + lag, lag)
        };
        let lags =
            [(1, 0.005), (2, 0.015), (3, 0.030)].map(|(n, seconds)| lag(&run(100, n), seconds));
        let mut results = Results { lags: lags.to_vec(), ..Results::default() };
        assert_eq!(
            verdicts(&results, "100 instances, single deaths"),
            [
                ["≤ 10 ms", "15 ms", "not reached"],
                ["≤ 10 ms", "13 ms", "not reached"],
                ["≤ 20 ms", "15 ms", "reached"],
                ["≤ 20 ms", "13 ms", "reached"]
            ]
        );
        assert_eq!(verdicts(&results, "All deaths"), [["≥ 0 s", "5 ms", "reached"]]);
        results.lags.push(lag(&run(1000, 1), -0.001));
        assert_eq!(verdicts(&results, "All deaths"), [["≥ 0 s", "-1 ms", "not reached"]]);
    }

    #[test]
    fn the_last_of_many_counts_from_the_last_deadline() {
        let lag = |n: u32| {
            let deadline = 10.0 + f64::from(n) / 1000.0;
            Lag::of(
                &run(10_000, 1),
                "mass".to_owned(),
                n,
                0.0,
                0.0,
                deadline,
                14.0,
                14.0 - deadline,
            )
        };
        let mut results = Results { lags: (1..=2999).map(lag).collect(), ..Results::default() };
        assert_eq!(last_of_many(&results, ""), None);
        results.lags.push(lag(3000));
        assert_eq!(last_of_many(&results, ""), Some(1.0));
        assert_eq!(last_of_many(&results, "in 100 services"), None);
    }

    #[test]
    fn a_write_in_steady_state_is_one_too_many_unless_it_is_a_probe() {
        let [part, steady] = [OPERATOR, "steady"].map(str::to_owned);
        let received = Some(1);
        let expense = Expense::of(
            &run(10_000, 1),
            part.clone(),
            steady.clone(),
            60.0,
            1e3,
            0.2,
            40.0,
            50.0,
            received,
            None,
        );
        let call = |kind: &str| {
            let [verb, kind] = ["patch", kind].map(str::to_owned);
            Call::of(&run(10_000, 1), part.clone(), steady.clone(), verb, kind, 60.0, 7.0)
        };
        let (expenses, calls) = (vec![expense], vec![call("Lease")]);
        let mut results = Results { expenses, calls, ..Results::default() };
        assert_eq!(verdicts(&results, "Steady state"), [["≤ 0", "0", "reached"]]);
        results.calls.push(call("EndpointSlice"));
        assert_eq!(verdicts(&results, "Steady state"), [["≤ 0", "7", "not reached"]]);
        assert_eq!(
            verdicts(&results, "10,000 in one service, 1,000 beats/s"),
            [
                ["≥ 990", "1000", "reached"],
                ["≤ 60 MB", "41.9 MB", "reached"],
                ["≤ 60 MB", "52.4 MB", "reached"],
                ["≤ 15 %", "20 %", "not reached"],
            ]
        );
        let spread = verdicts(&results, "10,000 in 100 services, 1,000 beats/s");
        assert!(spread.iter().all(|[.., verdict]| verdict == "not measured"), "{spread:?}");
        let spread = Run { variant: "in 100 services".to_owned(), ..run(10_000, 1) };
        let usage =
            |part: &str, rss| Usage::of(&spread, part.to_owned(), 10.0, 1e3, 0.05, rss, rss);
        results.usages = vec![usage(OPERATOR, 80.0), usage("etcd", 999.0)];
        let spread = verdicts(&results, "10,000 in 100 services, 1,000 beats/s");
        assert_eq!(spread[1], ["≤ 60 MB", "83.9 MB", "not reached"]);
    }

    #[test]
    fn a_living_instance_that_leaves_fails_the_target_in_every_system() {
        let lag = Lag::of(&run(100, 1), "single".to_owned(), 1, 0.0, 0.0, 10.0, 10.1, 0.1);
        let mut results = Results { lags: vec![lag], ..Results::default() };
        let of_all = |results: &Results| verdicts(results, "All scenarios but the freezes");
        assert_eq!(of_all(&results), [["≤ 0", "0", "reached"]]);
        results.missed = vec![
            Missed::of(&run(100, 1), "stray".to_owned(), 7),
            Missed::of(&run(100, 1), "single".to_owned(), 8),
        ];
        assert_eq!(of_all(&results), [["≤ 0", "1", "not reached"]]);
    }

    #[test]
    fn the_slowest_takeover_decides_and_a_small_start_does_not_count() {
        let line = |how: &str, instances, published| {
            Takeover::of(&run(instances, 1), how.to_owned(), 1, 0.5, published, None, 0)
        };
        let takeovers =
            vec![line("start", 100, 9.0), line("term", 100, 0.75), line("term", 1000, 1.5)];
        let results = Results { takeovers, ..Results::default() };
        assert_eq!(verdicts(&results, "Start with 10,000 instances")[0][2], "not measured");
        assert_eq!(
            verdicts(&results, "The leader is asked to end"),
            [["≤ 1 s", "500 ms", "reached"], ["≤ 1 s", "1.50 s", "not reached"]]
        );
    }
}

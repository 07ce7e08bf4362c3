//! The cost of the operator and the clients, and the time until an operator starts to publish or takes over.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use anyhow::Result;

use super::table::{grouped, table};
use super::tables::told;
use super::{Plots, Results, plot};
use crate::clients::NOBODY;
use crate::drive::SILENT;
use crate::records::cost::{Call, Expense, Takeover, Watched};
use crate::statistics::{Spread, quantile, sorted, told_number, told_seconds};

/// The name in the results.
pub const OPERATOR: &str = "operator";

/// The minimum number of tries for a plot. With fewer, a plot shows no more than the table.
const DISTRIBUTION: usize = 5;

/// Returns the tables and distributions.
pub fn tell(results: &Results, plots: &Plots) -> Result<String> {
    let expenses: Vec<&Expense> =
        results.expenses.iter().filter(|line| line.part == OPERATOR).collect();
    let mut text = String::new();
    if !expenses.is_empty() {
        text += "## What the operator costs\n\n\
             In steady state all instances beat and nothing happens. Under churn some are replaced by new ones all the \
             time: half of those who go say so, half fall silent. Received is all that the operator reads from the API \
             server, its watches above all, encryption included. Requests are as the operator counts them; probes are the \
             writes to its own Lease by which it proves that beats can arrive, and no other writes. Made again by \
             `make bench FULL=1 PARTS=cost`.\n\n";
        text += &expenses_of_the_operator(results, &expenses);
        text += &requests(results);
        text += &watches(results);
        text += &lags(results, "churn");
    }
    if !results.takeovers.is_empty() {
        text += &takeovers(results, plots)?;
    }
    Ok(text)
}

fn expenses_of_the_operator(results: &Results, expenses: &[&Expense]) -> String {
    let key = |line: &&Expense| {
        (Reverse(line.scenario.clone()), line.instances, line.beats_per_second.to_bits())
    };
    let rows: Vec<_> = grouped(expenses.iter().copied(), key)
        .into_iter()
        .map(|((Reverse(scenario), instances, _), lines)| {
            let told =
                |figure: &dyn Fn(&Expense) -> f64| told(lines.iter().map(|line| figure(line)));
            let asked = |is: &dyn Fn(&Call) -> bool| {
                told(&|line| {
                    let of_run = calls_of(results, line).filter(|call| is(call));
                    of_run.map(|call| call.count).sum::<f64>() / line.seconds
                })
            };
            let received = |line: &Expense| line.received.unwrap_or_default() as f64;
            [
                scenario,
                instances.to_string(),
                told(&|line| line.renewals_per_second),
                told(&|line| line.cpu * 100.0) + " %",
                told(&|line| line.rss_mib) + " MiB",
                told(&|line| line.peak_mib) + " MiB",
                told(&|line| received(line) / line.seconds / 1000.0) + " kB",
                told(&|line| received(line) / line.seconds / line.renewals_per_second),
                asked(&|call| !call.writes()),
                asked(&|call| call.writes() && !call.is_a_probe()),
                asked(&|call| call.is_a_probe()),
            ]
        })
        .collect();
    let headings = [
        "What happens",
        "Instances",
        "Beats/s",
        "CPU",
        "Memory",
        "Peak",
        "Received/s",
        "Bytes a beat",
        "Reads/s",
        "Writes/s",
        "Probes/s",
    ];
    table(headings, &rows)
}

/// Returns the operator's requests in the same span as `spent`.
pub fn calls_of<'a>(
    results: &'a Results,
    spent: &'a Expense,
) -> impl Iterator<Item = &'a Call> + use<'a> {
    results.calls.iter().filter(move |call| {
        let pace = |beats: f64| beats.to_bits();
        (&call.part, &call.scenario, call.instances, pace(call.beats_per_second), call.run)
            == (
                &spent.part,
                &spent.scenario,
                spent.instances,
                pace(spent.beats_per_second),
                spent.run,
            )
    })
}

impl Call {
    /// Whether the request changes an object.
    pub fn writes(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// Whether the operator renews its own Lease, to prove that beats can arrive. The operator never writes Leases
    /// of instances, it only deletes them.
    pub fn is_a_probe(&self) -> bool {
        self.writes() && self.kind == "Lease" && self.verb != "delete"
    }
}

fn requests(results: &Results) -> String {
    let calls = results.calls.iter().filter(|call| call.part == OPERATOR);
    let key = |call: &&Call| {
        let crowd =
            (Reverse(call.scenario.clone()), call.instances, call.beats_per_second.to_bits());
        (crowd, call.verb.clone(), call.kind.clone())
    };
    let rows: Vec<_> = grouped(calls, key)
        .into_iter()
        .map(|(((Reverse(scenario), instances, beats), verb, kind), calls)| {
            let request = if kind.is_empty() { verb } else { format!("{verb} {kind}") };
            let rate = told(calls.iter().map(|call| call.count / call.seconds));
            [scenario, instances.to_string(), due(beats), request, rate]
        })
        .collect();
    table(["What happens", "Instances", "Beats due/s", "Request", "A second"], &rows)
}

fn watches(results: &Results) -> String {
    let key = |line: &&Watched| {
        let crowd =
            (Reverse(line.scenario.clone()), line.instances, line.beats_per_second.to_bits());
        (crowd, line.resource.clone())
    };
    // Every watch gets one bookmark a minute, whichever resource it watches.
    let busy = results.watched.iter().filter(|line| line.events / line.seconds >= 0.2);
    let rows: Vec<_> = grouped(busy, key)
        .into_iter()
        .map(|(((Reverse(scenario), instances, beats), resource), lines)| {
            [
                scenario,
                instances.to_string(),
                due(beats),
                resource,
                told(lines.iter().map(|line| line.events / line.seconds)),
                told(lines.iter().map(|line| line.bytes / line.seconds / 1000.0)) + " kB",
                told(lines.iter().map(|line| line.bytes / line.events)),
            ]
        })
        .collect();
    let table = table(
        [
            "What happens",
            "Instances",
            "Beats due/s",
            "Resource",
            "Events/s",
            "Bytes/s",
            "Bytes an event",
        ],
        &rows,
    );
    match table.as_str() {
        "" => table,
        _ => format!(
            "What the API server counts of all watches, also those of its own controllers, which read each Lease once \
             more; what sends bookmarks only is left out:\n\n{table}"
        ),
    }
}

fn due(beats: u64) -> String {
    told_number(f64::from_bits(beats))
}

/// Returns the lags of the instances that came and went in a scenario, or beside it.
fn lags(results: &Results, scenario: &str) -> String {
    let lags = results.lags.iter().filter(|lag| lag.scenario.starts_with(scenario));
    let rows: Vec<_> = grouped(lags, |lag| (lag.instances, lag.scenario.clone()))
        .into_iter()
        .map(|((instances, scenario), lags)| {
            let runs: Vec<Vec<f64>> = grouped(&lags, |lag| lag.run)
                .into_values()
                .map(|run| sorted(run.iter().map(|lag| lag.lag)))
                .collect();
            let at = |share| {
                Spread::of(runs.iter().filter_map(|run| quantile(run, share)))
                    .map_or_else(String::new, |spread| spread.told(told_seconds))
            };
            let missed = results
                .missed
                .iter()
                .filter(|missed| (&missed.scenario, missed.instances) == (&scenario, instances));
            let (seen, missed) = (lags.len().to_string(), missed.count().to_string());
            [scenario, instances.to_string(), seen, at(0.5), at(0.99), at(1.0), missed]
        })
        .collect();
    table(["Who", "Instances", "Seen", "p50", "p99", "Last", "Never seen"], &rows)
}

fn takeovers(results: &Results, plots: &Plots) -> Result<String> {
    let mut text = String::from(
        "## How soon an operator begins, and takes over\n\n\
         From the start of its process (nobody else runs, and all instances are published), or from the signal that \
         ends the leader beside a second one: `term` asks it to, `kill` does not. Published is when the watcher sees an \
         instance go that left while nobody led. A newcomer has registered before the start, and is published with its \
         next beat, which takes up to an interval. Leads is asked every 10 ms, so it may be seen after the first publication. \
         Removed are those who lived. Made again by \
         `make bench FULL=1 PARTS=cost`.\n\n",
    );
    let key = |line: &&Takeover| (line.how.clone(), line.instances);
    let groups = grouped(&results.takeovers, key);
    let rows: Vec<_> = groups
        .iter()
        .map(|((how, instances), lines)| {
            let told = |figure: fn(&Takeover) -> Option<f64>| {
                Spread::of(lines.iter().filter_map(|line| figure(line)))
                    .map_or_else(String::new, |spread| spread.told(told_seconds))
            };
            [
                how.clone(),
                instances.to_string(),
                lines.len().to_string(),
                told(|line| Some(line.leads)),
                told(|line| Some(line.published)),
                told(|line| line.newcomer),
                lines.iter().map(|line| line.lost).sum::<u32>().to_string(),
            ]
        })
        .collect();
    let headings = ["How", "Instances", "Tries", "Leads", "Published", "Newcomer", "Removed"];
    text += &table(headings, &rows);
    let silent = lags(results, SILENT);
    if !silent.is_empty() {
        text += "Some fall silent at that very moment, and are to be pruned by the next leader, past their own deadlines as \
                 always:\n\n";
        text += &silent;
    }
    // Only the groups with enough tries for a distribution.
    let lines: Vec<plot::Line> = groups
        .iter()
        .filter(|(_, lines)| lines.len() >= DISTRIBUTION)
        .map(|((how, instances), lines)| plot::Line {
            name: format!("{how}, {instances} instances"),
            values: sorted(lines.iter().map(|line| line.published)),
        })
        .collect();
    if !lines.is_empty() {
        text += &plots.draw(
            "takeovers",
            "Takeovers: shares by the time until something is published",
            "until it publishes",
            &lines,
        )?;
    }
    Ok(text)
}

/// Returns the tables for the agent and the SDK.
pub fn clients(results: &Results) -> String {
    let clients = results.expenses.iter().filter(|line| line.part != OPERATOR);
    let key = |line: &&Expense| (line.part.clone(), line.instances);
    let groups = grouped(clients, key);
    let rows: Vec<_> = groups
        .into_iter()
        .map(|((part, instances), lines)| {
            let told = |figure: fn(&Expense) -> f64| told(lines.iter().map(|line| figure(line)));
            [
                part.clone(),
                instances.to_string(),
                told(|line| line.beats_per_second),
                told(|line| line.cpu * 100.0) + " %",
                told(|line| line.rss_mib) + " MiB",
                told(|line| line.peak_mib) + " MiB",
                requests_of_client(results, &part, instances),
            ]
        })
        .collect();
    let table =
        table(["Client", "Instances", "Beats due/s", "CPU", "Memory", "Peak", "Requests/s"], &rows);
    match table.as_str() {
        "" => table,
        _ => format!(
            "## What a client costs\n\n\
             One process with one instance or with many, in steady state. Requests are those that the API server counts, \
             less those that there are without any client. The SDK is for processes that are one instance: with many \
             in one process each has its own connection. Made again by `make bench FULL=1 PARTS=client`.\n\n{table}"
        ),
    }
}

/// Returns the requests by kind, without those that the control plane causes itself, and without those so rare that
/// they may be noise.
fn requests_of_client(results: &Results, part: &str, instances: u32) -> String {
    const NOISE: f64 = 0.02;
    let rates = |part: &str, instances| {
        let of = |call: &&Call| call.part == part && call.instances == instances;
        grouped(results.calls.iter().filter(of), |call| (call.verb.clone(), call.kind.clone()))
            .into_iter()
            .filter_map(|(key, calls)| {
                let rates = calls.iter().map(|call| call.count / call.seconds);
                Some((key, Spread::of(rates)?.median))
            })
            .collect::<BTreeMap<_, _>>()
    };
    let nobody = rates(NOBODY, 0);
    let told: Vec<String> = rates(part, instances)
        .into_iter()
        .filter_map(|((verb, kind), rate)| {
            let mine = rate - nobody.get(&(verb.clone(), kind.clone())).copied().unwrap_or(0.0);
            (mine >= NOISE).then(|| format!("{verb} {kind} {}", told_number(mine)))
        })
        .collect();
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Run;
    use crate::systems::Name;

    fn run(instances: u32) -> Run {
        let (system, variant) = (Name::Beatkeeper, String::new());
        Run { system, variant, instances, beats_per_second: 10.0, run: 1 }
    }

    fn call(part: &str, instances: u32, verb: &str, kind: &str, count: f64) -> Call {
        let [part, scenario, verb, kind] = [part, "steady", verb, kind].map(str::to_owned);
        Call::of(&run(instances), part, scenario, verb, kind, 10.0, count)
    }

    fn expense(part: &str, instances: u32) -> Expense {
        let [part, scenario] = [part, "steady"].map(str::to_owned);
        let received = Some(80_000);
        Expense::of(&run(instances), part, scenario, 10.0, 10.0, 0.05, 20.0, 25.0, received, None)
    }

    #[test]
    fn probes_are_told_apart_and_the_removal_of_a_lease_is_none() {
        let results = Results {
            expenses: vec![expense(OPERATOR, 100)],
            calls: vec![
                call(OPERATOR, 100, "get", "", 50.0),
                call(OPERATOR, 100, "patch", "Lease", 20.0),
                call(OPERATOR, 100, "update", "EndpointSlice", 9.0),
                call(OPERATOR, 100, "delete", "Lease", 1.0),
                call(OPERATOR, 1000, "update", "EndpointSlice", 990.0),
            ],
            ..Results::default()
        };
        let told = expenses_of_the_operator(&results, &[&results.expenses[0]]);
        let row = "| steady | 100 | 10 | 5 % | 20 MiB | 25 MiB | 8 kB | 800 | 5 | 1 | 2 |\n";
        assert!(told.contains(row), "{told}");
    }

    #[test]
    fn what_is_asked_without_a_client_is_taken_off() {
        let results = Results {
            calls: vec![
                call(NOBODY, 0, "get", "leases", 10.0),
                call("agent", 1000, "get", "leases", 10.1),
                call("agent", 1000, "patch", "leases", 1000.0),
                call("agent", 1, "patch", "leases", 1.0),
            ],
            ..Results::default()
        };
        assert_eq!(requests_of_client(&results, "agent", 1000), "patch leases 100");
        assert_eq!(requests_of_client(&results, "agent", 1), "patch leases 0.10");
    }
}

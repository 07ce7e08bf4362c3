//! The lag until each system shows a change.

use anyhow::Result;

use super::table::{grouped, table, who};
use super::{Plots, Results, plot};
use crate::records::Lag;
use crate::statistics::{Spread, quantile, sorted, told_number, told_seconds};

/// The scenarios in the order of the report, with their descriptions.
const SCENARIOS: [(&str, &str, &str); 4] = [
    (
        "single",
        "Single deaths",
        "One instance after the other falls silent at a random moment. The lag counts from when its ttl is over, \
         reckoned from when its last renewal was *sent*, to when an independent watcher sees it gone; in the column \
         after it from when that renewal was *answered*, so without the way of the last beat. Early are those that were \
         gone before a ttl after the sending. Where there are several runs the figures are the medians of those of each, and of \
         fewer than a hundred deaths in a run the p99 is the last.",
    ),
    (
        "mass",
        "Many deaths at once",
        "Half of all instances, but 3,000 at most, fall silent at one moment; each has its own deadline.",
    ),
    (
        "leave",
        "Deregistration",
        "An instance says that it leaves. The lag counts from when that was sent.",
    ),
    (
        "return",
        "Revival",
        "One that was gone comes back. The lag counts from when it began to register.",
    ),
];

/// Returns the tables and distributions.
pub fn tell(results: &Results, plots: &Plots) -> Result<String> {
    let mut text = String::new();
    for (scenario, title, about) in SCENARIOS {
        let lags: Vec<&Lag> = results.lags.iter().filter(|lag| lag.scenario == scenario).collect();
        if lags.is_empty() {
            continue;
        }
        text += &format!(
            "## {title}\n\n{about}\n\nMade again by `make bench FULL=1 PARTS=\"peers plane\"`.\n\n"
        );
        text += &table(
            [
                "System",
                "Instances",
                "Beats/s",
                "Seen",
                "p50",
                "p99",
                "Last",
                "p50, p99 from answered",
                "Early",
                "Never seen",
            ],
            &rows(results, scenario, &lags),
        );
        for (instances, lags) in grouped(lags, |lag| lag.instances) {
            let name = format!("lag-{scenario}-{instances}");
            let title = format!("{title} of {instances} instances: shares by lag");
            text += &plots.draw(&name, &title, "lag", &lines(lags))?;
        }
    }
    Ok(text)
}

/// Returns a line for each system and rate of beats. The rate is named if there are several.
fn lines(lags: Vec<&Lag>) -> Vec<plot::Line> {
    let pace = |lag: &&Lag| lag.beats_per_second.to_bits();
    let paces = grouped(lags.iter().copied(), pace).len();
    let name = |lag: &&Lag| match paces {
        1 => who(lag.system, &lag.variant),
        _ => {
            let beats = told_number(lag.beats_per_second);
            format!("{}, {beats} beats/s", who(lag.system, &lag.variant))
        }
    };
    grouped(lags, name)
        .into_iter()
        .map(|(name, lags)| plot::Line { name, values: sorted(lags.iter().map(|lag| lag.lag)) })
        .collect()
}

fn rows(results: &Results, scenario: &str, lags: &[&Lag]) -> Vec<[String; 10]> {
    let key = |lag: &&Lag| {
        (lag.instances, lag.system, lag.variant.clone(), lag.beats_per_second.to_bits())
    };
    grouped(lags.iter().copied(), key)
        .into_iter()
        .map(|((instances, system, variant, beats), lags)| {
            let runs = |figure: fn(&Lag) -> f64| -> Vec<Vec<f64>> {
                let runs = grouped(&lags, |lag| lag.run).into_values();
                runs.map(|run| sorted(run.iter().map(|lag| figure(lag)))).collect()
            };
            let (sent, answered) = (runs(|lag| lag.lag), runs(Lag::past_answer));
            let spread = |runs: &[Vec<f64>], share| {
                Spread::of(runs.iter().filter_map(|run| quantile(run, share)))
            };
            let at = |share| {
                spread(&sent, share).map_or_else(String::new, |spread| spread.told(told_seconds))
            };
            let median = |share| {
                spread(&answered, share)
                    .map_or_else(String::new, |spread| told_seconds(spread.median))
            };
            let from_answer = match scenario {
                "single" | "mass" => format!("{}, {}", median(0.5), median(0.99)),
                _ => String::new(),
            };
            let missed = results.missed.iter().filter(|missed| {
                (missed.scenario.as_str(), missed.system, missed.instances)
                    == (scenario, system, instances)
                    && missed.variant == variant
                    && missed.beats_per_second.to_bits() == beats
            });
            [
                who(system, &variant),
                instances.to_string(),
                told_number(f64::from_bits(beats)),
                lags.len().to_string(),
                at(0.5),
                at(0.99),
                at(1.0),
                from_answer,
                lags.iter().filter(|lag| lag.lag < 0.0).count().to_string(),
                missed.count().to_string(),
            ]
        })
        .collect()
}

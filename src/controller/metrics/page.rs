//! Generates the page `docs/metrics.md` from the registered metrics.

use std::fmt::Write;

use super::{catalogue::Described, process::Metrics};
use crate::controller::clock::Clock;

const INTRODUCTION: &str = "\
# Metrics

<!-- Generated from the code: cargo run -- metrics > docs/metrics.md -->

`beatkeeper controller --metrics-bind-address=:8080` answers `GET /metrics` in the text format of OpenMetrics. Counters
and histograms begin at 0 with the process. No label grows with the number of registrations or instances, unless
`--metrics-per-registration` asks for it.

";

const ALERTS_INTRODUCTION: &str = "
## Alerts

Examples to start with; choose the numbers for your cluster.
";

/// An example of an alert.
struct Alert {
    name: &'static str,
    expression: &'static str,
    /// What it means and what to look at.
    meaning: &'static str,
}

const ALERTS: [Alert; 10] = [
    Alert {
        name: "BeatkeeperAbsent",
        expression: "sum(beatkeeper_leader) < 1 or absent(beatkeeper_leader)",
        meaning: "No replica publishes, so no instance is pruned. What is published stays.",
    },
    Alert {
        name: "BeatkeeperPruneSlow",
        expression: "histogram_quantile(0.99, sum by (le) (rate(beatkeeper_prune_lag_seconds_bucket[15m]))) > 1",
        meaning: "Dead instances stay published for too long: look at the API server's latency \
                  (`beatkeeper_api_call_duration_seconds`) and at waiting calls (`beatkeeper_api_call_wait_seconds`).",
    },
    Alert {
        name: "BeatkeeperHolds",
        expression: "sum by (reason) (beatkeeper_holds) > 0",
        meaning: "For ten minutes: instances are kept although they are silent. The reason, and `kubectl get sreg -A`, say why.",
    },
    Alert {
        name: "BeatkeeperRegistrationsNotPublished",
        expression: "sum by (reason) (beatkeeper_registrations{reason!=\"Published\"}) > 0",
        meaning: "For ten minutes: a registration needs your action; its condition Ready says which.",
    },
    Alert {
        name: "BeatkeeperManyExpired",
        expression: "beatkeeper_instances{state=\"Expired\"} / ignoring(state) sum without (state) (beatkeeper_instances) > 0.3",
        meaning: "Nearly a third of all instances has fallen silent. Check whether they are dead, or cannot reach the \
             API server.",
    },
    Alert {
        name: "BeatkeeperPathUnproven",
        expression: "beatkeeper_path_proof_age_seconds > 60",
        meaning: "For a minute this replica has had no proof that beats can arrive. While it leads, it prunes no instance; a replica that begins to lead without this proof publishes no instance.",
    },
    Alert {
        name: "BeatkeeperStoreRolledBack",
        expression: "increase(beatkeeper_store_rollbacks_total[15m]) > 0",
        meaning: "The store went back to an earlier state, as after a restore of etcd. The operator handles this (docs/restore.md); if no backup was restored, check etcd.",
    },
    Alert {
        name: "BeatkeeperWatchBroken",
        expression: "sum by (kind) (rate(beatkeeper_watch_restarts_total[5m])) > 0.1",
        meaning: "A watch breaks again and again: look at the operator's log and permissions.",
    },
    Alert {
        name: "BeatkeeperCannotRead",
        expression: "max by (namespace, kind) (beatkeeper_unreadable) > 0",
        meaning: "For five minutes: the API server does not let the operator read something, so that nothing is published or \
                  pruned there. The operator's log says how to mend it; most often a namespace of `watchNamespaces` is gone.",
    },
    Alert {
        name: "BeatkeeperWritesFail",
        expression: "sum by (kind, result) (rate(beatkeeper_api_writes_total{result!~\"ok|conflict\"}[5m])) > 0.1",
        meaning: "Writes are refused, throttled or lost. `refused` is most often a missing permission, a quota or an admission policy.",
    },
];

/// The page, in Markdown.
pub fn page() -> String {
    let described = Metrics::described(Clock::start(), true).1;
    let mut page = INTRODUCTION.to_owned();
    page.push_str("| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n");
    for Described { name, kind, labels, help } in &described {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a String never fails.
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {help}. |", labels.join(", "));
    }
    page.push_str(ALERTS_INTRODUCTION);
    for Alert { name, expression, meaning } in &ALERTS {
        let _ = writeln!(page, "\n**{name}**: {meaning}\n\n```promql\n{expression}\n```");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_client::{
        gate::Outcome,
        request::{ApiRequest, Verb},
    };
    use beatkeeper_core::vocabulary::{key::Key, monotonic_time::MonotonicTime};
    use std::{collections::BTreeSet, time::Duration};

    /// The series that a metric has, by its type.
    fn series(described: &Described) -> Vec<String> {
        let name = &described.name;
        match described.kind.as_str() {
            "histogram" => {
                ["bucket", "count", "sum"].iter().map(|part| format!("{name}_{part}")).collect()
            }
            _ => vec![name.clone()],
        }
    }

    /// The words in a text that look like a series or a metric of the operator.
    fn named(text: &str) -> Vec<&str> {
        let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        text.split(word).filter(|word| word.starts_with("beatkeeper_")).collect()
    }

    #[test]
    fn the_page_is_the_one_the_code_generates() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let installed = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            installed == page(),
            "docs/metrics.md is not what the code generates; run `cargo run -- metrics > docs/metrics.md`"
        );
    }

    #[test]
    fn alerts_ask_only_for_what_there_is() {
        let described = Metrics::described(Clock::start(), true).1;
        let series: BTreeSet<String> = described.iter().flat_map(series).collect();
        for Alert { name, expression, .. } in &ALERTS {
            let named = named(expression);
            assert!(!named.is_empty(), "{name}");
            for metric in named {
                assert!(series.contains(metric), "{name} asks for {metric}");
            }
        }
    }

    #[test]
    fn every_metric_that_is_exposed_is_on_the_page_and_the_reverse() {
        let (metrics, described) = Metrics::described(Clock::start(), true);
        let listed: BTreeSet<(String, String)> = described
            .into_iter()
            .map(|one| (one.name.trim_end_matches("_total").to_owned(), one.kind))
            .collect();
        // A metric with labels is exposed only after it has a value.
        metrics.decided(&Key::new("shop", "greeter"), &[], "Published");
        metrics.watch("Pods").note(MonotonicTime::default());
        metrics.unreadable("", &["Nodes"]);
        let request = ApiRequest { verb: Verb::Patch, kind: "Pod", status: false };
        metrics.call_ended(request, Outcome::Ok, Duration::ZERO);
        let text = metrics.text();
        let exposed: BTreeSet<(String, String)> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
            .collect();
        assert_eq!(listed, exposed);
    }
}

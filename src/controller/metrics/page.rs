//! The operator's part of the page `docs/metrics.md`.

use std::fmt::Write;

use super::process::Metrics;
use crate::{controller::clock::Clock, metrics::catalogue};

const INTRODUCTION: &str = "\
## The operator

`beatkeeper controller --metrics-bind-address=:8080` answers `GET /metrics` in the text format of OpenMetrics; with
`--metrics-secure` [over TLS, to users that may read them](operations.md#metrics-for-readers-with-a-token). Counters
and histograms begin at 0 with the process. No label grows with the number of registrations or instances, unless
`--metrics-per-registration` asks for it.

";

const ALERTS_INTRODUCTION: &str = "
## Alerts

The Helm chart has these alerts (`metrics.prometheusRule.enabled`). Each has a runbook with its expression, its impact, and what to do.
[operations.md](operations.md#alerts-and-dashboards) describes the thresholds, and how to use the alerts without the Prometheus operator.

| Alert | Meaning |
|---|---|
";

/// An alert of the chart.
struct Alert {
    name: &'static str,
    meaning: &'static str,
}

/// In the order of the chart.
const ALERTS: [Alert; 12] = [
    Alert {
        name: "BeatkeeperAbsent",
        meaning: "No replica publishes, so no instance is added or pruned.",
    },
    Alert { name: "BeatkeeperPruneSlow", meaning: "Dead instances stay published for too long." },
    Alert { name: "BeatkeeperHolds", meaning: "Instances are kept although they are silent." },
    Alert {
        name: "BeatkeeperRegistrationsNotPublished",
        meaning: "A registration needs your action.",
    },
    Alert { name: "BeatkeeperManyExpired", meaning: "Many instances have fallen silent." },
    Alert {
        name: "BeatkeeperPathUnproven",
        meaning: "A replica has no proof that beats can arrive.",
    },
    Alert {
        name: "BeatkeeperStoreRolledBack",
        meaning: "The store went back to an earlier state, as after a restore of etcd.",
    },
    Alert { name: "BeatkeeperWatchBroken", meaning: "A watch breaks again and again." },
    Alert {
        name: "BeatkeeperCannotRead",
        meaning: "The operator has no right to read something that decisions need.",
    },
    Alert { name: "BeatkeeperWritesFail", meaning: "Writes are refused, throttled or lost." },
    Alert {
        name: "BeatkeeperGatewayCertificateExpires",
        meaning: "A certificate of the gateways expires soon, and was not renewed.",
    },
    Alert {
        name: "BeatkeeperGatewayCertificateExpired",
        meaning: "A certificate of the gateways has expired.",
    },
];

/// The operator's part of the page, in Markdown.
pub(crate) fn section() -> String {
    let described = Metrics::described(Clock::start(), true).1;
    let mut page = INTRODUCTION.to_owned();
    page.push_str(&catalogue::table(&described));
    page.push_str(ALERTS_INTRODUCTION);
    for Alert { name, meaning } in &ALERTS {
        let _ = writeln!(page, "| [{name}](runbooks/{name}.md) | {meaning} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kube_client::{
            gate::Outcome,
            request::{ApiRequest, Verb},
        },
        metrics::{
            catalogue::Described,
            families::{exposed, listed},
        },
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
    fn the_alerts_of_the_chart_are_on_the_page_and_ask_only_for_what_there_is() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/beatkeeper/files/alerts.yaml");
        let alerts = std::fs::read_to_string(file).expect("the alerts of the chart");
        let names = alerts.lines().filter_map(|line| line.strip_prefix("- alert: "));
        let listed = ALERTS.iter().map(|alert| alert.name);
        assert_eq!(names.collect::<Vec<_>>(), listed.collect::<Vec<_>>());
        let described = Metrics::described(Clock::start(), true).1;
        let mut series: BTreeSet<String> = described.iter().flat_map(series).collect();
        let gateway = beatkeeper_gateway::metrics::Metrics::default();
        series.extend(gateway.described().iter().map(|metric| metric.name.clone()));
        let asked = named(&alerts);
        assert!(asked.len() > ALERTS.len(), "{asked:?}");
        for metric in asked {
            assert!(series.contains(metric), "an alert asks for {metric}");
        }
    }

    #[test]
    fn every_metric_that_is_exposed_is_on_the_page_and_the_reverse() {
        let (metrics, described) = Metrics::described(Clock::start(), true);
        // A metric with labels is exposed only after it has a value.
        metrics.decided(&Key::new("shop", "greeter"), &[], "Published");
        metrics.watch("Pods").note(MonotonicTime::default());
        metrics.unreadable("", &["Nodes"]);
        let request = ApiRequest { verb: Verb::Patch, kind: "Pod", status: false };
        metrics.call_ended(request, Outcome::Ok, Duration::ZERO);
        assert_eq!(listed(described), exposed(&metrics.text()));
    }
}

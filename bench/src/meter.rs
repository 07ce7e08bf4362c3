//! What processes have used, and what they count themselves, at the beginning and at the end of a span. The report
//! computes the differences.

use std::collections::HashMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::clock;
use crate::metrics;
use crate::results::Results;
use crate::system::Part;

/// The names of the metrics that the report uses begin with these words. An API server has many more.
const USED: [&str; 6] = [
    "beatkeeper_",
    "etcd_disk_",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "apiserver_request_total",
    "apiserver_watch_events_sizes_sum",
    "apiserver_watch_events_sizes_count",
];

/// The beginning or the end of a span with this name.
#[derive(Debug, Clone, Copy)]
pub enum Edge<'a> {
    Began(&'a str),
    Ended(&'a str),
}

impl<'a> Edge<'a> {
    /// Returns the columns `scenario` and `phase`.
    fn columns(self) -> [&'a str; 2] {
        match self {
            Self::Began(scenario) => [scenario, "began"],
            Self::Ended(scenario) => [scenario, "ended"],
        }
    }
}

/// Records what a running process has used so far, and what was counted outside of it: the renewals that were answered,
/// and the bytes that the process has received from the API server.
pub fn record_usage(
    results: &Results,
    edge: Edge<'_>,
    part: &Part,
    renewals: Option<u64>,
    received: Option<u64>,
) -> Result<()> {
    let process = procfs::process::Process::new(i32::try_from(part.pid)?)?;
    let (stat, status) = (process.stat()?, process.status()?);
    let mib = |kib: Option<u64>| {
        Ok::<_, anyhow::Error>(kib.context("the process has ended")? as f64 / 1024.0)
    };
    let [scenario, phase] = edge.columns();
    let line = json!({
        "part": part.name,
        "scenario": scenario,
        "phase": phase,
        "at": clock::now(),
        "cpu": (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
        "rss": mib(status.vmrss)?,
        "peak": mib(status.vmhwm)?,
        "renewals": renewals,
        "received": received,
    });
    results.append("meters", [line])
}

/// Records those metrics of processes that the report uses.
pub async fn record_metrics(results: &Results, edge: Edge<'_>, parts: &[Part]) -> Result<()> {
    for part in parts {
        if let Some(process) = &part.metrics {
            let page = metrics::page(process).await?;
            results.append("metrics", used(edge, part.name, &page))?;
        }
    }
    Ok(())
}

/// Returns the lines of a page that the report uses. No label of them has a quote or a comma in its value.
fn used(edge: Edge<'_>, part: &str, page: &str) -> Vec<Value> {
    let [scenario, phase] = edge.columns();
    let line = |line: &str| {
        // Labels may contain spaces.
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split("\",");
        let labels: HashMap<&str, &str> =
            labels.filter_map(|label| label.trim_end_matches('"').split_once("=\"")).collect();
        let label = |name: &str| labels.get(name).copied().unwrap_or_default();
        Some(json!({
            "part": part,
            "scenario": scenario,
            "phase": phase,
            "name": name,
            "kind": label("kind"),
            "verb": label("verb"),
            "step": label("step"),
            "resource": label("resource"),
            "le": label("le").replace("+Inf", "inf"),
            "value": value.parse::<f64>().ok()?,
        }))
    };
    let is_used = |line: &&str| USED.iter().any(|prefix| line.starts_with(prefix));
    page.lines().filter(is_used).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::results;

    #[test]
    fn only_a_process_that_runs_has_used_something() {
        let folder = tempfile::tempdir().unwrap();
        let results = results(folder.path());
        let record = |pid| {
            let part = Part { name: "test", pid, metrics: None };
            record_usage(&results, Edge::Began("steady"), &part, Some(7), None)
        };
        assert!(record(u32::MAX).is_err());
        record(std::process::id()).unwrap();
        let mut lines = csv::Reader::from_path(folder.path().join("meters.csv")).unwrap();
        let line: HashMap<String, String> = lines.deserialize().next().unwrap().unwrap();
        assert_eq!((&*line["phase"], &*line["renewals"]), ("began", "7"));
        assert!(line["rss"].parse::<f64>().unwrap() > 0.0, "{line:?}");
    }

    #[test]
    fn metrics_have_their_labels_and_those_that_no_table_uses_are_left_out() {
        let page = "# HELP beatkeeper_a A thing.\nother 1\n\
                    beatkeeper_a{kind=\"a b\",role=\"c\",le=\"+Inf\"} 1.5\nbeatkeeper_b 2\n";
        let lines = used(Edge::Ended("churn"), "test", page);
        assert_eq!(lines.len(), 2, "{lines:?}");
        let told = ["scenario", "phase", "name", "kind", "le", "verb"].map(|it| &lines[0][it]);
        assert_eq!(told, ["churn", "ended", "beatkeeper_a", "a b", "inf", ""]);
        assert_eq!((&lines[0]["value"], &lines[1]["name"]), (&json!(1.5), &json!("beatkeeper_b")));
    }
}

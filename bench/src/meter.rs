//! What processes have used, and what they count themselves, at the beginning and at the end of a span. The report
//! computes the differences.

use anyhow::{Context, Result};
use serde_json::json;

use crate::clock;
use crate::metrics;
use crate::results::Results;

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
    part: &str,
    pid: u32,
    renewals: Option<u64>,
    received: Option<u64>,
) -> Result<()> {
    let process = procfs::process::Process::new(i32::try_from(pid)?)?;
    let (stat, status) = (process.stat()?, process.status()?);
    let mib = |kib: Option<u64>| {
        Ok::<_, anyhow::Error>(kib.context("the process has ended")? as f64 / 1024.0)
    };
    let [scenario, phase] = edge.columns();
    let line = json!({
        "part": part,
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

/// Records those metrics of a page that the report uses.
pub fn record_metrics(results: &Results, edge: Edge<'_>, part: &str, page: &str) -> Result<()> {
    let [scenario, phase] = edge.columns();
    let used = metrics::samples(page)
        .into_iter()
        .filter(|sample| USED.iter().any(|prefix| sample.name.starts_with(prefix)));
    let lines = used.map(|sample| {
        let [kind, verb, step, resource, le] =
            ["kind", "verb", "step", "resource", "le"].map(|label| sample.label(label));
        json!({
            "part": part, "scenario": scenario, "phase": phase, "name": sample.name, "kind": kind, "verb": verb,
            "step": step, "resource": resource, "le": le.replace("+Inf", "inf"), "value": sample.value,
        })
    });
    results.append("metrics", lines)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;
    use crate::results::tests::results;

    /// Returns the only line of a file of results.
    fn line(folder: &Path, name: &str) -> HashMap<String, String> {
        let mut lines = csv::Reader::from_path(folder.join(format!("{name}.csv"))).unwrap();
        let lines: Vec<HashMap<String, String>> = lines.deserialize().map(Result::unwrap).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    }

    #[test]
    fn only_a_process_that_runs_has_used_something() {
        let folder = tempfile::tempdir().unwrap();
        let results = results(folder.path());
        let record =
            |pid| record_usage(&results, Edge::Began("steady"), "test", pid, Some(7), None);
        assert!(record(u32::MAX).is_err());
        record(std::process::id()).unwrap();
        let line = line(folder.path(), "meters");
        assert_eq!((&*line["phase"], &*line["renewals"]), ("began", "7"));
        assert!(line["rss"].parse::<f64>().unwrap() > 0.0, "{line:?}");
    }

    #[test]
    fn metrics_are_recorded_with_their_labels_and_those_that_no_table_uses_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let page = "apiserver_request_total{resource=\"leases\",verb=\"PATCH\"} 5\nother 1\n";
        record_metrics(&results(folder.path()), Edge::Ended("churn"), "test", page).unwrap();
        let line = line(folder.path(), "metrics");
        let told = ["scenario", "phase", "name", "verb", "resource", "value"].map(|it| &*line[it]);
        assert_eq!(told, ["churn", "ended", "apiserver_request_total", "PATCH", "leases", "5.0"]);
    }
}

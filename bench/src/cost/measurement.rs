//! A measurement in progress, and what was used between two readings: resources, requests and bytes.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use crate::driver::Driver;
use crate::messages::Instance;
use crate::metrics::{Sample, growth};
use crate::process::Usage;
use crate::relay::Relay;
use crate::system::Setup;
use crate::systems::control_plane::{Cluster, Operator};

/// A measurement in progress.
pub struct Measurement {
    pub setup: Setup,
    pub driver: Driver,
    /// Counts the bytes of one operator.
    pub relay: Relay,
    pub cluster: Cluster,
    /// The number of operators started so far.
    pub operators: u32,
    /// The next number that no instance has had.
    pub newcomer: Instance,
}

/// The values of all meters at one moment.
pub struct Reading {
    at: Instant,
    usage: Usage,
    renewals: u64,
    received: u64,
    operator: Vec<Sample>,
    api_server: Vec<Sample>,
}

impl Measurement {
    /// Starts the only operator. Its bytes are counted.
    pub async fn counted_operator(&mut self) -> Result<Operator> {
        let kubeconfig = self.cluster.kubeconfig_by(self.relay.port)?;
        let name = self.next_name();
        let operator = self.cluster.operator(&name, &kubeconfig, &[])?;
        self.cluster.until_it_publishes(&operator).await?;
        Ok(operator)
    }

    /// Returns the name of the next operator, for its log.
    pub fn next_name(&mut self) -> String {
        self.operators += 1;
        format!("operator-{}", self.operators)
    }

    /// Reads all meters.
    pub async fn reading(&mut self, operator: &Operator) -> Result<Reading> {
        // The API server's page is read first: it takes the longest, and is not a cost of the operator.
        let api_server = self.cluster.scrape().await?;
        let (renewals, _) = self.driver.count().await?;
        Ok(Reading {
            api_server,
            renewals,
            at: Instant::now(),
            usage: Usage::of(operator.server.pid())?,
            received: self.relay.received(),
            operator: operator.scrape().await?,
        })
    }

    /// Records what was used between two readings.
    pub fn record(&self, scenario: &str, before: &Reading, after: &Reading) -> Result<()> {
        let seconds = after.at.duration_since(before.at).as_secs_f64();
        let used = json!({
            "part": "operator", "scenario": scenario, "seconds": seconds,
            "renewals": (after.renewals - before.renewals) as f64 / seconds,
            "cpu": (after.usage.cpu - before.usage.cpu) / seconds, "rss": after.usage.rss, "peak": after.usage.peak,
            "received": after.received - before.received,
        });
        self.driver.append("usage", [used])?;
        self.driver.append("calls", calls(scenario, seconds, &before.operator, &after.operator))?;
        let watched = watched(scenario, seconds, &before.api_server, &after.api_server);
        self.driver.append("watched", watched)
    }
}

/// Returns what the operator itself counts: calls, and watches that were restarted.
fn calls(scenario: &str, seconds: f64, before: &[Sample], after: &[Sample]) -> Vec<Value> {
    let grown = |name, labels| growth(before, after, name, labels);
    let mut calls = grown("beatkeeper_api_call_duration_seconds_count", ["verb", "kind"]);
    for ([_, kind], count) in grown("beatkeeper_watch_restarts_total", ["", "kind"]) {
        calls.insert(["watch".to_owned(), kind], count);
    }
    let line = |([verb, kind], count): ([String; 2], f64)| {
        json!({
            "part": "operator", "scenario": scenario, "verb": verb, "kind": kind, "seconds": seconds, "count": count,
        })
    };
    calls.into_iter().map(line).collect()
}

/// Returns the events and bytes of all watches, by resource.
fn watched(scenario: &str, seconds: f64, before: &[Sample], after: &[Sample]) -> Vec<Value> {
    let grown = |name| growth(before, after, name, ["resource", ""]);
    let bytes = grown("apiserver_watch_events_sizes_sum");
    let line = |(key, events): ([String; 2], f64)| {
        let bytes = bytes.get(&key).copied().unwrap_or_default();
        let [resource, _] = key;
        json!({
            "scenario": scenario, "resource": resource, "seconds": seconds, "events": events, "bytes": bytes,
        })
    };
    grown("apiserver_watch_events_sizes_count").into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::samples;

    #[test]
    fn calls_are_counted_by_verb_and_kind() {
        let name = "beatkeeper_api_call_duration_seconds_count";
        let before = samples(&format!("{name}{{kind=\"Lease\",verb=\"patch\"}} 4\n"));
        let after = samples(&format!(
            "{name}{{kind=\"Lease\",verb=\"patch\"}} 7\n\
             {name}{{kind=\"EndpointSlice\",verb=\"update\"}} 2\n\
             beatkeeper_watch_restarts_total{{kind=\"Pod\"}} 1\n"
        ));
        let calls = calls("steady", 2.0, &before, &after);
        let told: Vec<_> =
            calls.iter().map(|it| (&it["verb"], &it["kind"], &it["count"])).collect();
        let [patch, update, watch] = ["patch", "update", "watch"].map(Value::from);
        let [lease, slice, pod] = ["Lease", "EndpointSlice", "Pod"].map(Value::from);
        let [three, two, one] = [3.0, 2.0, 1.0].map(Value::from);
        let wanted = [(&patch, &lease, &three), (&update, &slice, &two), (&watch, &pod, &one)];
        assert_eq!(told, wanted);
    }

    #[test]
    fn watches_are_counted_by_resource() {
        let page = "apiserver_watch_events_sizes_sum{group=\"g\",resource=\"leases\",version=\"v1\"} 2048\n\
                    apiserver_watch_events_sizes_count{group=\"g\",resource=\"leases\",version=\"v1\"} 2\n";
        let lines = watched("steady", 2.0, &[], &samples(page));
        let told = (&lines[0]["resource"], &lines[0]["events"], &lines[0]["bytes"]);
        assert_eq!(told, (&json!("leases"), &json!(2.0), &json!(2048.0)));
    }
}

//! The resources, requests and bytes that were used between two readings.

use std::time::Instant;

use anyhow::Result;

use super::Driver;
use crate::process::Usage;
use crate::records::Run;
use crate::records::cost::{Call, Expense, Watched};
use crate::relay::Bytes;
use crate::scrape::{self, Sample};
use crate::systems::beatkeeper::Operator;

/// The values of all meters at one moment.
pub struct Reading {
    at: Instant,
    usage: Usage,
    renewals: u64,
    bytes: Bytes,
    operator: Vec<Sample>,
    api_server: Vec<Sample>,
}

impl Driver {
    /// Reads all meters.
    pub async fn reading(&mut self, operator: &Operator) -> Result<Reading> {
        // The API server's page is read first: it takes the longest, and is not a cost of the operator.
        let api_server = self.stage.scrape().await?;
        let (renewals, _) = self.drive.count().await?;
        Ok(Reading {
            api_server,
            renewals,
            at: Instant::now(),
            usage: Usage::of(operator.server.pid())?,
            bytes: self.relay.bytes(),
            operator: operator.scrape().await?,
        })
    }

    /// Records what was used between two readings.
    pub fn account(&self, scenario: &str, before: &Reading, after: &Reading) -> Result<()> {
        let seconds = after.at.duration_since(before.at).as_secs_f64();
        let run = &self.drive.run;
        let expense = Expense::of(
            run,
            "operator".to_owned(),
            scenario.to_owned(),
            seconds,
            (after.renewals - before.renewals) as f64 / seconds,
            (after.usage.cpu - before.usage.cpu) / seconds,
            after.usage.rss,
            after.usage.peak,
            Some(after.bytes.received - before.bytes.received),
            Some(after.bytes.sent - before.bytes.sent),
        );
        self.drive.append(&[expense])?;
        self.drive.append(&calls(run, scenario, seconds, &before.operator, &after.operator))?;
        self.drive.append(&watched(run, scenario, seconds, &before.api_server, &after.api_server))
    }
}

/// Returns what the operator itself counts: calls, and watches that were restarted.
fn calls(
    run: &Run,
    scenario: &str,
    seconds: f64,
    before: &[Sample],
    after: &[Sample],
) -> Vec<Call> {
    let grown = |name: &str, labels: [&str; 2]| {
        let at = |samples| scrape::sums(samples, name, labels);
        scrape::growth(&at(before), at(after))
    };
    let mut calls = grown("beatkeeper_api_call_duration_seconds_count", ["verb", "kind"]);
    for ([_, kind], count) in grown("beatkeeper_watch_restarts_total", ["", "kind"]) {
        calls.insert(["watch".to_owned(), kind], count);
    }
    let line = |([verb, kind], count): ([String; 2], f64)| {
        Call::of(run, "operator".to_owned(), scenario.to_owned(), verb, kind, seconds, count)
    };
    calls.into_iter().map(line).collect()
}

fn watched(
    run: &Run,
    scenario: &str,
    seconds: f64,
    before: &[Sample],
    after: &[Sample],
) -> Vec<Watched> {
    let grown = |name: &str| {
        let at = |samples| scrape::sums(samples, name, ["resource"]);
        scrape::growth(&at(before), at(after))
    };
    let bytes = grown("apiserver_watch_events_sizes_sum");
    grown("apiserver_watch_events_sizes_count")
        .into_iter()
        .map(|(key, events)| {
            let bytes = bytes.get(&key).copied().unwrap_or_default();
            let [resource] = key;
            Watched::of(run, scenario.to_owned(), resource, seconds, events, bytes)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::Name;

    fn run() -> Run {
        let (system, variant) = (Name::Beatkeeper, String::new());
        Run { system, variant, instances: 9, beats_per_second: 3.0, run: 1 }
    }

    #[test]
    fn calls_are_told_by_verb_and_kind() {
        let name = "beatkeeper_api_call_duration_seconds_count";
        let before = format!("{name}{{kind=\"Lease\",verb=\"patch\"}} 4\n");
        let after = format!(
            "{name}{{kind=\"Lease\",verb=\"patch\"}} 7\n\
             {name}{{kind=\"EndpointSlice\",verb=\"update\"}} 2\n\
             beatkeeper_watch_restarts_total{{kind=\"Pod\"}} 1\n"
        );
        let [before, after] = [before, after].map(|page| scrape::samples(&page));
        let calls = calls(&run(), "steady", 2.0, &before, &after);
        let told: Vec<_> =
            calls.iter().map(|call| (call.verb.as_str(), call.kind.as_str(), call.count)).collect();
        let wanted =
            [("patch", "Lease", 3.0), ("update", "EndpointSlice", 2.0), ("watch", "Pod", 1.0)];
        assert_eq!(told, wanted);
    }

    #[test]
    fn watches_are_told_by_resource() {
        let page = "apiserver_watch_events_sizes_sum{group=\"g\",resource=\"leases\",version=\"v1\"} 2048\n\
                    apiserver_watch_events_sizes_count{group=\"g\",resource=\"leases\",version=\"v1\"} 2\n";
        let lines = watched(&run(), "steady", 2.0, &[], &scrape::samples(page));
        let told: Vec<_> =
            lines.iter().map(|line| (line.resource.as_str(), line.events, line.bytes)).collect();
        assert_eq!(told, [("leases", 2.0, 2048.0)]);
    }
}

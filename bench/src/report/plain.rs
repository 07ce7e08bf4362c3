//! How long plain Kubernetes publishes dead endpoints, compared with Beatkeeper.

use std::collections::HashSet;

use super::Results;
use super::table::{grouped, table};
use crate::records::Lag;
use crate::records::plain::{How, Out};
use crate::statistics::{quantile, sorted, told_number, told_seconds};
use crate::systems::Name;

/// The folder of these results.
const PART: &str = "plain";

const COMPARISON: &str = "The last row is Beatkeeper's single deaths from above, on a control plane without nodes, \
    counted from the last beat: the ttl and the lag past it. A death lies up to an interval after the last beat, and is \
    seen by so much sooner. It is no race at the same odds. The ttl is chosen for each service, and so can be the \
    numbers of a probe, which the kubelet then sends more often; what a dead node takes is set for the whole cluster. \
    And a beat tells only of what sends it: an app that hangs beside its agent is found by the probe of the agent.\n\n";

/// Returns a table, or a sentence if the measurement was tried and this machine does not support it.
pub fn tell(results: &Results) -> String {
    if results.outs.is_empty() {
        let is_tried = results.facts.iter().any(|(part, _)| part == PART);
        let line =
            "Plain Kubernetes was not measured beside them: this machine could not run a node.\n\n";
        return if is_tried { line.to_owned() } else { String::new() };
    }
    let mut rows: Vec<_> = grouped(&results.outs, |out| out.how)
        .into_iter()
        .map(|(how, outs)| {
            let (what, from) = match how {
                How::Hang => ("A Pod hangs, with the default readiness probe", "the hang"),
                How::Node => ("The node dies, with all its Pods", "its death"),
            };
            row(what.to_owned(), from, deaths(&outs), outs.iter().map(|out| out.seconds))
        })
        .collect();
    let beside = beatkeeper(results);
    let comparison = if beside.is_empty() { "" } else { COMPARISON };
    rows.extend(beside);
    format!(
        "## Plain Kubernetes beside them\n\n\
         On a real node, without Beatkeeper: a Deployment behind a Service with a selector. Seconds until an independent \
         watcher of EndpointSlices sees that an endpoint is no longer ready. A Pod hangs when its processes are stopped \
         (SIGSTOP) at a random moment; its readiness probe names a path and a port, and all its numbers are the defaults: \
         a probe each 10 s, 1 s for the answer, three failures. The node dies when its kubelet and the processes of all \
         Pods are stopped at one moment; the control plane runs with its defaults, by which a node counts as lost 50 s after \
         its last heartbeat.\n\n{comparison}Made again by `make bench FULL=1 PARTS=plain`.\n\n{}",
        table(["What", "Counted from", "Deaths", "Endpoints", "Least", "p50", "Most"], &rows),
    )
}

fn row(what: String, from: &str, deaths: usize, seconds: impl Iterator<Item = f64>) -> [String; 7] {
    let seconds = sorted(seconds);
    let at = |share| quantile(&seconds, share).map_or_else(String::new, told_seconds);
    let endpoints = seconds.len().to_string();
    [what, from.to_owned(), deaths.to_string(), endpoints, at(0.0), at(0.5), at(1.0)]
}

fn deaths(outs: &[&Out]) -> usize {
    outs.iter().map(|out| out.death).collect::<HashSet<_>>().len()
}

/// Returns Beatkeeper's single deaths among the smallest number of instances. If the peers were measured, these are
/// the deaths beside the peers.
fn beatkeeper(results: &Results) -> Vec<[String; 7]> {
    let is_single = |lag: &&Lag| {
        lag.system == Name::Beatkeeper && lag.variant.is_empty() && lag.scenario == "single"
    };
    let single = grouped(results.lags.iter().filter(is_single), |lag| lag.instances);
    let Some((instances, lags)) = single.into_iter().next() else { return Vec::new() };
    let ttl = |lag: &&Lag| ((lag.deadline - lag.last_renewal) * 1000.0).round() as u64;
    grouped(lags, ttl)
        .into_iter()
        .map(|(millis, lags)| {
            let ttl = told_number(millis as f64 / 1000.0);
            let what =
                format!("Beatkeeper, ttl {ttl} s: one of {instances} instances falls silent");
            let seconds = lags.iter().map(|lag| lag.seen - lag.last_renewal);
            row(what, "its last beat", lags.len(), seconds)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Fact;
    use crate::records::Run;

    fn out(how: How, death: u32, seconds: f64) -> Out {
        Out { death, how, pod: format!("plain-{seconds}"), seconds }
    }

    fn lag(instances: u32, ttl: f64, lag: f64) -> Lag {
        let (system, variant) = (Name::Beatkeeper, String::new());
        let run = Run { system, variant, instances, beats_per_second: 33.3, run: 1 };
        let (last, deadline) = (100.0, 100.0 + ttl);
        Lag::of(&run, "single".to_owned(), 1, last, 0.0, deadline, deadline + lag, lag)
    }

    fn tried() -> (String, Fact) {
        (PART.to_owned(), Fact { what: "when".to_owned(), value: "noon".to_owned() })
    }

    #[test]
    fn endpoints_of_one_dead_node_are_one_death() {
        let outs = vec![
            out(How::Node, 1, 48.0),
            out(How::Hang, 1, 31.0),
            out(How::Node, 1, 48.5),
            out(How::Hang, 2, 22.0),
            out(How::Hang, 3, 27.0),
        ];
        let told = tell(&Results { outs, ..Results::default() });
        let hang = "| the hang | 3 | 3 | 22 s | 27 s | 31 s |\n";
        let node = "| its death | 1 | 2 | 48 s | 48 s | 48.5 s |\n";
        assert!(told.find(hang).unwrap() < told.find(node).unwrap(), "{told}");
        assert!(!told.contains("Beatkeeper, ttl"), "{told}");
    }

    #[test]
    fn beatkeeper_is_told_from_the_last_beat_with_its_ttl_and_the_fewest_instances() {
        let results = Results {
            outs: vec![out(How::Hang, 1, 22.0)],
            lags: vec![lag(1000, 10.0, 0.5), lag(100, 10.0, 0.25), lag(100, 10.0, 0.5)],
            ..Results::default()
        };
        let told = tell(&results);
        let row = "| Beatkeeper, ttl 10 s: one of 100 instances falls silent | its last beat | 2 | 2 | 10.2 s | 10.2 s | \
                   10.5 s |\n";
        assert!(told.contains(row) && told.contains(COMPARISON), "{told}");
        assert!(!told.contains("1000 instances"), "{told}");
    }

    #[test]
    fn where_no_node_could_run_a_line_says_so_and_where_none_was_tried_nothing() {
        let told = tell(&Results { facts: vec![tried()], ..Results::default() });
        assert!(told.contains("could not run a node") && !told.contains('#'), "{told}");
        assert_eq!(tell(&Results::default()), "");
    }
}

//! The agent's part of the page `docs/metrics.md`.

use super::counts::AgentMetrics;
use crate::metrics::catalogue;

const INTRODUCTION: &str = "\
## The agent

`beatkeeper agent run`, `exec` and `proxy` with `--metrics-bind-address=127.0.0.1:8485` answer `GET /metrics` in the same format. Without
this setting they serve no metrics. An agent may beat for up to a thousand instances and more: so only
`beatkeeper_agent_instance_registered` has a series for each instance, and only for the first thousand; all other metrics are sums over
all instances of the agent. [agent.md](agent.md#metrics) shows how to use them.

";

/// The agent's part of the page, in Markdown.
pub(crate) fn section() -> String {
    INTRODUCTION.to_owned() + &catalogue::table(&AgentMetrics::described().1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::families::{exposed, listed};

    #[test]
    fn every_metric_that_the_agent_exposes_is_on_the_page_and_the_reverse() {
        let (metrics, described) = AgentMetrics::described();
        assert_eq!(listed(described), exposed(&metrics.text()));
    }
}

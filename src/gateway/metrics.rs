//! The gateway's part of the page `docs/metrics.md`.

use beatkeeper_gateway::metrics::Metrics;

use crate::metrics::catalogue::{self, Described};

const INTRODUCTION: &str = "\
## The gateway

`beatkeeper gateway` answers `GET /metrics` at `--health-probe-bind-address`, `:8081` by default, in the same format. No label grows with the
number of instances. [gateway.md](gateway.md#watch-them) shows how to use them.

";

/// The gateway's part of the page, in Markdown.
pub(crate) fn section() -> String {
    INTRODUCTION.to_owned() + &catalogue::table(&described())
}

fn described() -> Vec<Described> {
    let metrics = Metrics::default();
    let described = metrics.described().iter();
    let described = described.map(|known| Described {
        name: known.name.clone(),
        kind: known.kind.clone(),
        labels: known.labels,
        help: known.help,
    });
    described.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::families::{exposed, listed};

    #[test]
    fn every_metric_that_the_gateway_exposes_is_on_the_page_and_the_reverse() {
        let metrics = Metrics::default();
        // A metric with labels is exposed once it has a value.
        metrics.refused("head");
        metrics.turned_away("full");
        metrics.cut("head");
        metrics.stream_ended("silent");
        metrics.certificate_expires("beats", 1);
        assert_eq!(listed(described()), exposed(&metrics.text()));
    }
}

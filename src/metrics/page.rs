//! Generates the page `docs/metrics.md` from the registered metrics.

use crate::{agent, controller, gateway};

const INTRODUCTION: &str = "\
# Metrics

<!-- Generated from the code: cargo run -- metrics > docs/metrics.md -->

[The operator](#the-operator), [the agent](#the-agent) and [the gateway](#the-gateway) serve metrics for Prometheus. The operator and the agent
serve `process_*` metrics, too, under the names that all programs use for them.

";

/// The page, in Markdown.
pub fn page() -> String {
    let sections =
        [controller::metrics_section(), agent::metrics_section(), gateway::metrics_section()];
    INTRODUCTION.to_owned() + &sections.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_the_one_the_code_generates() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let installed = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            installed == page(),
            "docs/metrics.md is not what the code generates; run `cargo run -- metrics > docs/metrics.md`"
        );
    }
}

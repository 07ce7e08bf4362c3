//! Generates the page `docs/metrics.md` from the registered metrics.

use crate::{agent, controller};

const INTRODUCTION: &str = "\
# Metrics

<!-- Generated from the code: cargo run -- metrics > docs/metrics.md -->

[The operator](#the-operator) and [the agent](#the-agent) serve metrics for Prometheus. Both serve `process_*` metrics under the names that
all programs use for them.

";

/// The page, in Markdown.
pub fn page() -> String {
    [INTRODUCTION, &controller::metrics_section(), "\n", &agent::metrics_section()].concat()
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

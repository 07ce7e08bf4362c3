//! The names and types of metrics, to compare a page of the documentation with what is served.

use std::collections::BTreeSet;

use super::catalogue::Described;

/// Those that the page describes.
pub(crate) fn listed(described: Vec<Described>) -> BTreeSet<(String, String)> {
    let family = |one: Described| (one.name.trim_end_matches("_total").to_owned(), one.kind);
    described.into_iter().map(family).collect()
}

/// Those that an answer in the format of OpenMetrics has.
pub(crate) fn exposed(text: &str) -> BTreeSet<(String, String)> {
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    families.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

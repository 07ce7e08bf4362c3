//! Markdown tables.

use std::collections::BTreeMap;

/// Returns a table from its headings and rows, or an empty string if there are no rows.
pub fn table<const COLUMNS: usize>(
    headings: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let headings = headings.map(str::to_owned);
    let mut text = line(&headings) + &"|---".repeat(COLUMNS) + "|\n";
    rows.iter().for_each(|row| text += &line(row));
    text + "\n"
}

/// Sorts items into groups. The order within a group is kept.
pub fn grouped<T, K: Ord>(
    all: impl IntoIterator<Item = T>,
    key: impl Fn(&T) -> K,
) -> BTreeMap<K, Vec<T>> {
    let mut groups: BTreeMap<K, Vec<T>> = BTreeMap::new();
    for one in all {
        groups.entry(key(&one)).or_default().push(one);
    }
    groups
}

/// Returns a system's name with its variant.
pub fn who(system: crate::systems::Name, variant: &str) -> String {
    match variant {
        "" => system.as_str().to_owned(),
        _ => format!("{} {variant}", system.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_rows_is_nothing() {
        assert_eq!(table(["a"], &[]), "");
        let rows = [["1".to_owned(), "2".to_owned()]];
        assert_eq!(table(["a", "b"], &rows), "| a | b |\n|---|---|\n| 1 | 2 |\n\n");
    }
}

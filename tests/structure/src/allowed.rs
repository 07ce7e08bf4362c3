//! Lists of exceptions that may only shrink.

use std::collections::BTreeMap;

use crate::files;

/// How many of something each place may have.
pub type Counts = BTreeMap<String, usize>;

/// Reads `tests/structure/allowed/NAME.txt`: one place a line, with its count. A missing file is an empty list.
///
/// # Panics
/// If a line is not a place and a count.
pub fn list(name: &str) -> Counts {
    let text = files::read(&format!("tests/structure/allowed/{name}.txt")).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entry = |line: &str| {
        let (place, count) = line.rsplit_once(' ')?;
        Some((place.to_owned(), count.parse().ok()?))
    };
    lines.map(|line| entry(line).unwrap_or_else(|| panic!("{name}.txt: {line}"))).collect()
}

/// What is wrong with a list: counts that grew, and counts that are higher than what is there.
pub fn compare(name: &str, allowed: &Counts, found: &Counts) -> Vec<String> {
    let none = 0;
    let places: std::collections::BTreeSet<_> = allowed.keys().chain(found.keys()).collect();
    let wrong = places.into_iter().filter_map(|place| {
        let (allowed, found) =
            (allowed.get(place).unwrap_or(&none), found.get(place).unwrap_or(&none));
        let list = format!("tests/structure/allowed/{name}.txt");
        match found.cmp(allowed) {
            std::cmp::Ordering::Greater => {
                Some(format!("{place}: {found}, and {allowed} are allowed"))
            }
            std::cmp::Ordering::Less if *found == 0 => {
                Some(format!("{place}: none is left; remove its line from {list}"))
            }
            std::cmp::Ordering::Less => Some(format!(
                "{place}: {found} are left; write this in {list} in place of {allowed}"
            )),
            std::cmp::Ordering::Equal => None,
        }
    });
    wrong.collect()
}

//! Something about a registration that a person should know.

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It explains what is seen.
    Note,
    /// A person should look at it.
    Warning,
    /// Clients get no answer, or a wrong one, or will soon.
    Bad,
}

impl Severity {
    /// The word in JSON and YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong, as a sentence without a full stop.
    pub what: String,
    /// What to do, as a sentence; empty if nothing has to be done.
    pub remedy: String,
}

impl Finding {
    /// Makes a finding.
    pub fn new(severity: Severity, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity, what: what.into(), remedy: remedy.into() }
    }
}

/// The names of several things: the first three, and how many more there are.
pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const NAMED: usize = 3;
    let names: Vec<&str> = names.into_iter().collect();
    let first = names.iter().take(NAMED).copied().collect::<Vec<_>>();
    match (names.len(), first.split_last()) {
        (0..=NAMED, Some((last, before))) if !before.is_empty() => {
            format!("{} and {last}", before.join(", "))
        }
        (0..=NAMED, _) => first.join(""),
        (all, _) => format!("{} and {} more", first.join(", "), all - NAMED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_names_are_listed_and_the_others_counted() {
        assert_eq!(named([]), "");
        assert_eq!(named(["a"]), "a");
        assert_eq!(named(["a", "b"]), "a and b");
        assert_eq!(named(["a", "b", "c"]), "a, b and c");
        assert_eq!(named(["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
    }
}

//! Messages for people: one line, and not longer than the contract allows.

use std::error::Error;

use beatkeeper_api::text::{error_chain, plain};

/// Returns the first line that is not blank, with invisible characters escaped: a message must not move the
/// cursor of a terminal, and must not fake a second line. A tab becomes a blank, as in most tables.
pub(super) fn line(text: &str) -> String {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    plain(&first.replace('\t', " ")).into_owned()
}

/// Cuts the text to `max` characters; the last character shows that there were more.
pub(super) fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

/// The text of an error with all its causes, on one line.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    line(&error_chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_first_line_that_says_something_without_control_characters() {
        assert_eq!(line("\n  \n psql: \u{1b}[31mno\tserver\r\nmore"), "psql: \\u{1b}[31mno server");
        assert_eq!(line(""), "");
    }

    #[test]
    fn what_is_cut_says_so_and_counts_characters_not_bytes() {
        assert_eq!(cut("ééé", 3), "ééé");
        assert_eq!(cut("éééé", 3), "éé…");
    }

    #[test]
    fn a_cause_that_its_error_names_is_not_said_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Outer(&'static str, #[source] std::io::Error);
        let inner = || std::io::Error::other("too bad");
        assert_eq!(chain(&Outer("failed", inner())), "failed: too bad");
        assert_eq!(chain(&Outer("failed: too bad", inner())), "failed: too bad");
    }
}

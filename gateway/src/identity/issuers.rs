//! The issuers whose tokens are accepted.

use std::time::Duration;

use beatkeeper_core::vocabulary::monotonic_time::MonotonicTime;

/// How long a former issuer is accepted after the change: the kubelet replaces each token within 24 h.
const FORMER_FOR: Duration = Duration::from_secs(24 * 3600);
/// The most former issuers that are kept.
const FORMER_MAX: usize = 16;

/// The issuers whose tokens are accepted. With several `--service-account-issuer`, the API server signs tokens for the
/// first one, and accepts those of all. It publishes only the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Issuers {
    current: String,
    besides: Vec<String>,
    /// Each with the time from which on it is not accepted, the oldest first.
    former: Vec<(String, MonotonicTime)>,
}

impl Issuers {
    /// The one that is published now, and those that are accepted besides.
    pub(super) fn new(current: String, besides: Vec<String>) -> Self {
        Self { current, besides, former: Vec::new() }
    }

    /// The one that is published.
    pub(super) fn current(&self) -> &str {
        &self.current
    }

    /// Whether tokens of this issuer are accepted.
    pub(super) fn accept(&self, issuer: &str, now: MonotonicTime) -> bool {
        let former = || self.former.iter().any(|(name, end)| name == issuer && now < *end);
        issuer == self.current || self.besides.iter().any(|name| name == issuer) || former()
    }

    /// This one is published now. Returns whether it is another one than before.
    pub(super) fn published(&mut self, issuer: String, now: MonotonicTime) -> bool {
        if issuer == self.current {
            return false;
        }
        self.former.retain(|(name, end)| *name != issuer && now < *end);
        if self.former.len() >= FORMER_MAX {
            self.former.remove(0);
        }
        let before = std::mem::replace(&mut self.current, issuer);
        self.former.push((before, now + FORMER_FOR));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: u64) -> MonotonicTime {
        MonotonicTime::from_start(Duration::from_secs(hours * 3600))
    }

    fn accepted(issuers: &Issuers, now: MonotonicTime) -> Vec<&'static str> {
        let all = ["first", "second", "besides", "unknown", ""];
        all.into_iter().filter(|issuer| issuers.accept(issuer, now)).collect()
    }

    #[test]
    fn a_former_issuer_is_accepted_for_a_day_and_one_that_was_named_always() {
        let mut issuers = Issuers::new("first".to_owned(), vec!["besides".to_owned()]);
        assert_eq!(accepted(&issuers, at(0)), ["first", "besides"]);
        assert!(!issuers.published("first".to_owned(), at(1)));
        assert!(issuers.published("second".to_owned(), at(10)));
        assert_eq!(issuers.current(), "second");
        assert_eq!(accepted(&issuers, at(33)), ["first", "second", "besides"]);
        assert_eq!(accepted(&issuers, at(34)), ["second", "besides"]);
    }

    #[test]
    fn an_issuer_that_returns_is_no_former_one_any_more() {
        let mut issuers = Issuers::new("first".to_owned(), Vec::new());
        assert!(issuers.published("second".to_owned(), at(0)));
        assert!(issuers.published("first".to_owned(), at(1)));
        assert_eq!(accepted(&issuers, at(100)), ["first"]);
    }

    #[test]
    fn few_former_issuers_are_kept() {
        let mut issuers = Issuers::new("first".to_owned(), Vec::new());
        for n in 0..100 {
            assert!(issuers.published(n.to_string(), at(0)));
        }
        assert_eq!(issuers.former.len(), FORMER_MAX);
        assert!(issuers.accept("98", at(1)) && !issuers.accept("first", at(1)));
    }
}

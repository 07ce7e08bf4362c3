//! The result of a check.

use super::{facts::Unread, id::Check};

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The check.
    pub check: Check,
    /// What it has found.
    pub outcome: Outcome,
}

/// What a check has found. Each text is a sentence without a full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All is well, in detail.
    Fine(String),
    /// Something is wrong.
    Failed {
        /// What.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// Something is allowed, and a person should know it.
    Warning {
        /// What.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// It cannot be known, and why.
    Unknown(String),
    /// It makes no sense while another check fails.
    Skipped(Check),
}

impl Verdict {
    /// All is well.
    pub fn fine(check: Check, detail: impl Into<String>) -> Self {
        Self { check, outcome: Outcome::Fine(detail.into()) }
    }

    /// Something is wrong.
    pub fn failed(check: Check, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, outcome: Outcome::Failed { what: what.into(), remedy: remedy.into() } }
    }

    /// A person should know this.
    pub fn warning(check: Check, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, outcome: Outcome::Warning { what: what.into(), remedy: remedy.into() } }
    }

    /// It cannot be known.
    pub fn unknown(check: Check, why: &Unread) -> Self {
        Self { check, outcome: Outcome::Unknown(why.0.clone()) }
    }

    /// Another check fails.
    pub fn skipped(check: Check, because: Check) -> Self {
        Self { check, outcome: Outcome::Skipped(because) }
    }

    /// Whether a person should look at it.
    pub fn is_noted(&self) -> bool {
        !matches!(self.outcome, Outcome::Fine(_) | Outcome::Skipped(_))
    }

    /// Whether something is wrong.
    pub fn is_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed { .. })
    }
}

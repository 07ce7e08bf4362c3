//! Something that is wrong with an object, before its place in a file is known.

use super::path::FieldPath;

/// How much a mistake matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The API server or the operator refuses it.
    Error,
    /// It is accepted, and likely not what was meant.
    Advice,
}

impl Level {
    /// The word in the output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Advice => "advice",
        }
    }
}

/// A mistake in an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// How much it matters.
    pub level: Level,
    /// The field.
    pub path: FieldPath,
    /// What is wrong, as a sentence without a full stop.
    pub what: String,
    /// What to do; empty if the sentence says it.
    pub remedy: String,
    /// Whether the value cannot be read as what it should be, so that no rule applies to it.
    pub blocks: bool,
}

impl Mistake {
    /// Something that is refused.
    pub fn error(path: FieldPath, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (what, remedy) = (what.into(), remedy.into());
        Self { level: Level::Error, path, what, remedy, blocks: false }
    }

    /// Something that is accepted.
    pub fn advice(path: FieldPath, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Advice, ..Self::error(path, what, remedy) }
    }

    /// The same, for a value of another type or size than it must have.
    #[must_use]
    pub fn blocking(self) -> Self {
        Self { blocks: true, ..self }
    }
}

//! A step of an argument.

/// What a step says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It speaks for publishing the instance.
    Fine,
    /// It explains something.
    Note,
    /// It keeps the instance from being published as ready, or will.
    Trouble,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it is about, in one or two words.
    pub topic: &'static str,
    /// What it says.
    pub mark: Mark,
    /// The step in words.
    pub text: String,
    /// What to do about it, if this step knows better than the reason of the instance.
    pub remedy: Option<String>,
}

impl Step {
    /// Makes a step.
    pub fn new(topic: &'static str, mark: Mark, text: impl Into<String>) -> Self {
        Self { topic, mark, text: text.into(), remedy: None }
    }

    /// The step, with what to do about it if something has to be done.
    #[must_use]
    pub fn with_remedy_if(self, needed: bool, remedy: impl Into<String>) -> Self {
        if needed { self.with_remedy(remedy) } else { self }
    }

    /// The step, with what to do about it.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

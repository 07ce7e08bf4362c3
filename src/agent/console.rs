//! The lines that the agent prints for people.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use beatkeeper_client::{
    event::{Event, Severity},
    heartbeat_loop::Report,
};

use crate::output;

/// The same trouble is printed again after this time, and not with every retry.
const REPEAT_AFTER: Duration = Duration::from_secs(30);

/// Prints what happens to one instance.
#[derive(Debug, Clone)]
pub struct Console {
    /// Names the instance if there are several.
    subject: String,
    verbose: bool,
}

impl Console {
    /// Makes the printer of an agent as a whole.
    pub fn new(verbose: bool) -> Self {
        Self { subject: String::new(), verbose }
    }

    /// Makes the printer of one instance of several.
    pub fn of(&self, subject: &str) -> Self {
        Self { subject: format!("{subject}: "), ..self.clone() }
    }

    /// Prints a line.
    pub fn print(&self, line: &str) {
        // println! would wait for a reader, and panic if the reader is gone; the instances have to keep beating.
        output::stdout().say(&format!("{}{line}", self.subject));
    }

    /// Prints an error that may take several lines.
    pub fn print_error(&self, lead: &str, error: &anyhow::Error) {
        output::stdout().say_error(&format!("{}{lead}", self.subject), &format!("{error:#}"));
    }

    /// Returns a function that prints events. A trouble that repeats is printed only once in a while.
    pub fn report(&self) -> Report {
        let told: Mutex<Option<(String, Instant)>> = Mutex::new(None);
        let this = self.clone();
        Arc::new(move |event| {
            if event.weight() == Severity::Detail && !this.verbose {
                return;
            }
            if let Event::Failed { failure, .. } | Event::RereadFailed(failure) = event {
                let text = failure.to_string();
                let Ok(mut told) = told.lock() else { return };
                let repeated = told
                    .as_ref()
                    .is_some_and(|(last, at)| *last == text && at.elapsed() < REPEAT_AFTER);
                if repeated && !this.verbose {
                    return;
                }
                *told = Some((text, Instant::now()));
            }
            this.print(&event.to_string());
        })
    }
}

//! The record of one instance.

use std::time::Instant;

/// One process, from its first beat to its end.
#[derive(Debug, Clone)]
pub struct InstanceRecord {
    pub registration: String,
    pub instance: String,
    pub beats: Vec<Beat>,
    pub end: End,
}

/// A beat that the API server accepted.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    pub sent: Instant,
    pub answered: Instant,
}

/// How a process ended, if it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It still beats.
    Alive,
    /// It stopped beating without deregistering. A beat that was in flight then may still have been
    /// accepted.
    Silent(Instant),
    /// It asked for the deletion of its Lease. `answered` is set when the deletion was done.
    Left { asked: Instant, answered: Option<Instant> },
}

impl InstanceRecord {
    pub fn new(registration: &str, instance: &str) -> Self {
        let (registration, instance) = (registration.to_owned(), instance.to_owned());
        Self { registration, instance, beats: Vec::new(), end: End::Alive }
    }

    pub fn alive(&self) -> bool {
        self.end == End::Alive
    }

    /// The last beat that was accepted by the given moment.
    pub fn last_beat(&self, by: Instant) -> Option<Beat> {
        self.beats.iter().rev().find(|beat| beat.answered <= by).copied()
    }
}

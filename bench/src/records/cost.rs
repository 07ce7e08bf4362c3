//! Lines about what an operator or a client costs, and how soon one operator takes over from another.

use serde::{Deserialize, Serialize};

use super::{Record, Run};
use crate::systems::Name;

record! {
    /// What a process used over a span.
    Expense in "expenses.csv" {
        /// Which process: `operator`, `agent` or `sdk`.
        part: String,
        /// What happened meanwhile: `steady` or `churn`.
        scenario: String,
        /// Over so many seconds.
        seconds: f64,
        /// So many renewals a second were answered.
        renewals_per_second: f64,
        /// Share of one core.
        cpu: f64,
        /// Memory at the end, in MiB.
        rss_mib: f64,
        /// The most memory ever, in MiB.
        peak_mib: f64,
        /// Bytes that it read from the API server, encryption included; where they were counted.
        received: Option<u64>,
        /// Bytes that it sent to the API server; where they were counted.
        sent: Option<u64>,
    }
}

record! {
    /// Requests to the API server over a span. Kinds of requests of which there was none have no line.
    Call in "calls.csv" {
        /// By whom; `nobody` for those that there are without the client that is measured.
        part: String,
        /// As in `expenses.csv`.
        scenario: String,
        /// `get`, `patch`, …
        verb: String,
        /// The kind or the resource; empty where the process does not count by it.
        kind: String,
        /// Over so many seconds.
        seconds: f64,
        /// So many, each try for itself.
        count: f64,
    }
}

record! {
    /// What all watches of the API server carried over a span, those of its own controllers among them.
    Watched in "watched.csv" {
        /// As in `expenses.csv`.
        scenario: String,
        /// What was watched.
        resource: String,
        /// Over so many seconds.
        seconds: f64,
        /// So many events, each as often as somebody watched.
        events: f64,
        /// So many bytes, not encrypted.
        bytes: f64,
    }
}

record! {
    /// An operator began to publish. Times are seconds since its start, or since the end of the leader before it was
    /// asked for.
    Takeover in "takeovers.csv" {
        /// `start`, `term` for a leader that was asked to end, or `kill` for one that was killed.
        how: String,
        /// The number of the try, from 1.
        round: u32,
        /// Until it said that it leads.
        leads: f64,
        /// Until the watcher saw a change that nobody else can have published.
        published: f64,
        /// Until the watcher saw an instance that had registered before its start; which had to beat once more.
        newcomer: Option<f64>,
        /// So many of the living went missing.
        lost: u32,
    }
}

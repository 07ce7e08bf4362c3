//! Lines about the cost of an operator or a client, and about how soon one operator takes over from another.

use serde::{Deserialize, Serialize};

use super::{Record, Run};
use crate::systems::Name;

record! {
    /// The resources that a process used over a span.
    Expense in "expenses.csv" {
        /// Which process: `operator`, `agent` or `sdk`.
        part: String,
        /// The scenario: `steady` or `churn`.
        scenario: String,
        /// Over how many seconds.
        seconds: f64,
        /// How many renewals were answered per second.
        renewals_per_second: f64,
        /// The processor time as a share of one core.
        cpu: f64,
        /// Memory at the end, in MiB.
        rss_mib: f64,
        /// The most memory ever, in MiB.
        peak_mib: f64,
        /// Bytes that the process received from the API server, including encryption, if they were counted.
        received: Option<u64>,
        /// Bytes that the process sent to the API server, if they were counted.
        sent: Option<u64>,
    }
}

record! {
    /// Requests to the API server over a span. Kinds of requests that did not occur have no line.
    Call in "calls.csv" {
        /// The client; `nobody` for requests that also occur without the measured client.
        part: String,
        /// As in `expenses.csv`.
        scenario: String,
        /// `get`, `patch`, …
        verb: String,
        /// The kind or the resource; empty if the process does not count by kind.
        kind: String,
        /// Over how many seconds.
        seconds: f64,
        /// The number of requests; each try counts.
        count: f64,
    }
}

record! {
    /// The events of all watches of the API server over a span, including those of its own controllers.
    Watched in "watched.csv" {
        /// As in `expenses.csv`.
        scenario: String,
        /// The watched resource.
        resource: String,
        /// Over how many seconds.
        seconds: f64,
        /// The number of events; each counts once for every watch.
        events: f64,
        /// The number of bytes, without encryption.
        bytes: f64,
    }
}

record! {
    /// An operator began to publish. Times are seconds since the operator's start, or since the previous leader was
    /// signalled to end.
    Takeover in "takeovers.csv" {
        /// The kind: `start`, `term` for a leader that was asked to end, or `kill` for a leader that was killed.
        how: String,
        /// The number of the try, from 1.
        round: u32,
        /// Seconds until the operator reported that it leads.
        leads: f64,
        /// Seconds until the watcher saw a change that only this operator can have published.
        published: f64,
        /// Seconds until the watcher saw an instance that had registered before the operator's start. The instance
        /// had to beat once more.
        newcomer: Option<f64>,
        /// How many living instances were missing.
        lost: u32,
    }
}

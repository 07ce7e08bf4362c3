//! The API server, as far as carriers need it: the election's Lease with the list of carriers, and what is published.

use std::collections::BTreeSet;

use beatkeeper_core::{
    carriers::frames::Incarnation,
    replica::leader::{Draft, LeaderLease},
};

/// What a replica asks.
#[derive(Debug, Clone)]
pub enum Request {
    /// Reads the election's Lease for the candidate.
    Read,
    /// Reads it to confirm the term before a prune (G10).
    Confirm,
    /// Writes it, with the list of carriers if that has changed.
    Write(Draft, Option<BTreeSet<Incarnation>>),
}

/// What it answers.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The Lease.
    Lease(Option<LeaderLease>),
    /// The Lease, for [`Request::Confirm`].
    Confirmed(Option<LeaderLease>),
    /// The write has succeeded, and has left this Lease and this list.
    Written(LeaderLease, BTreeSet<Incarnation>),
    /// The Lease has changed since.
    Refused,
    /// No answer.
    Unanswered,
}

/// The state of the API server.
#[derive(Debug, Default)]
pub struct Api {
    lease: Option<LeaderLease>,
    list: BTreeSet<Incarnation>,
    version: u64,
}

impl Api {
    pub fn handle(&mut self, request: &Request) -> Reply {
        match request {
            Request::Read => Reply::Lease(self.lease.clone()),
            Request::Confirm => Reply::Confirmed(self.lease.clone()),
            Request::Write(draft, list) => self.write(draft, list.clone()),
        }
    }

    fn write(&mut self, draft: &Draft, list: Option<BTreeSet<Incarnation>>) -> Reply {
        if draft.replaces != self.lease.as_ref().map(|lease| lease.version.clone()) {
            return Reply::Refused;
        }
        self.version += 1;
        let lease = LeaderLease {
            version: self.version.to_string(),
            holder: draft.holder.clone(),
            duration: std::time::Duration::from_secs(u64::try_from(draft.seconds).unwrap_or(1)),
            transitions: draft.transitions,
        };
        self.lease = Some(lease.clone());
        self.list = list.unwrap_or_else(|| self.list.clone());
        Reply::Written(lease, self.list.clone())
    }
}

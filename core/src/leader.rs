//! Leader election: one candidate's side of it, without clock and network.
//!
//! Candidates share one Lease and nothing else. Each measures with its own monotonic clock, as
//! everywhere here (L1):
//!
//! * A candidate's **claim** holds until the moment at which its last successful request was *sent*,
//!   plus the renew deadline. It knows that moment without asking anybody, so it stops in time when
//!   the API server cannot be reached, and when it was suspended.
//! * A **rival** takes over when it has seen no change of the Lease for nearly the lease duration
//!   ([`Durations::patience`]), counted from the moment at which it *saw* the last change, which is
//!   later than that change was sent.
//!
//! The renew deadline is shorter than that, so two claims never hold at one moment, and the difference
//! is left for writes that are under way. Every write is conditional on the version it was drafted
//! from: a request that arrives late changes nothing, of two rivals one wins, and a rival that has
//! missed a renewal is refused. So it need not look before it claims.
//! `renewTime` is written for people to read and never compared with a clock: steps and skew of wall
//! clocks neither steal nor double the leadership.

use std::time::Duration;

use super::moment::Moment;

mod durations;
#[cfg(test)]
mod tests;

pub use durations::{Durations, DurationsError};

/// What counts of the Lease that the candidates share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimLease {
    /// Its resourceVersion: any change of it is life of the holder.
    pub version: String,
    /// Who leads; empty when it was released.
    pub holder: String,
    /// How long the holder wants to be waited for.
    pub duration: Duration,
    /// How often the holder has changed.
    pub transitions: i32,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Nothing, until then.
    Wait(Moment),
    /// Read the Lease, and tell [`Candidate::saw`].
    Read,
    /// Write this, and tell [`Candidate::wrote`].
    Write(Draft),
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Create the Lease when there is none, otherwise update it if it still is at this version.
    pub replaces: Option<String>,
    /// The new holder; empty to release.
    pub holder: String,
    /// `leaseDurationSeconds`; at least what the candidate itself waits for.
    pub seconds: i32,
    /// How often the holder has changed, this time included.
    pub transitions: i32,
    /// Whether the holder changes, so that the time of it is to be written.
    pub acquires: bool,
}

/// One that wants to lead.
#[derive(Debug)]
pub struct Candidate {
    identity: String,
    durations: Durations,
    /// What was last seen, and when it was first seen to be so; none before the first answer.
    seen: Option<(Option<ClaimLease>, Moment)>,
    /// From when on what was last seen may be written upon; none when it is to be read first.
    free_from: Option<Moment>,
    /// The duration that was last written, also once the Lease is deleted.
    written: Duration,
    /// Whether the last write was refused.
    refused: bool,
    rest_until: Moment,
    valid_until: Option<Moment>,
}

impl Candidate {
    /// One that has seen nothing yet. The identity must be like no other's, an earlier process of the
    /// same name included.
    pub fn new(identity: String, durations: Durations) -> Self {
        Self {
            identity,
            durations,
            seen: None,
            free_from: None,
            written: Duration::ZERO,
            refused: false,
            rest_until: Moment::default(),
            valid_until: None,
        }
    }

    /// Until when the claim holds, whatever happens meanwhile; none when there is none.
    pub fn valid_until(&self) -> Option<Moment> {
        self.valid_until
    }

    /// Whether the claim holds.
    pub fn holds(&self, now: Moment) -> bool {
        self.valid_until.is_some_and(|until| now < until)
    }

    /// Who leads as far as was seen, for people to be told.
    pub fn leader(&self) -> Option<&str> {
        let (lease, _) = self.seen.as_ref()?;
        lease.as_ref().map(|lease| lease.holder.as_str()).filter(|holder| !holder.is_empty())
    }

    /// What to do now. After [`Move::Read`] and [`Move::Write`] the outcome must be told before the
    /// next question.
    pub fn next(&self, now: Moment) -> Move {
        match &self.seen {
            _ if now < self.rest_until => Move::Wait(self.rest_until),
            Some((lease, _)) if self.free_from.is_some_and(|from| from <= now) => {
                Move::Write(self.claim(lease.as_ref()))
            }
            _ => Move::Read,
        }
    }

    /// A read was answered at `now`, or a watch brought news: the Lease, or that there is none. What a watch
    /// brings may be older than what was read before. That costs time and nothing else: it counts as a
    /// change, and a claim that is drafted from it is refused.
    pub fn saw(&mut self, lease: Option<ClaimLease>, now: Moment) {
        let free_from = self.free_from(lease.as_ref(), now);
        self.written = lease.as_ref().map_or(self.written, |lease| lease.duration);
        let retry = now + self.durations.retry_period();
        let refused = std::mem::take(&mut self.refused);
        let mut stands_still = false;
        match &mut self.seen {
            Some((known, _)) if *known == lease => stands_still = true,
            seen => *seen = Some((lease, now)),
        }
        self.free_from = Some(free_from);
        // Who was refused though nothing has changed would be refused again.
        self.rest_until = if refused && stands_still { retry } else { free_from.clamp(now, retry) };
    }

    /// From when on the Lease as it is seen now may be claimed.
    fn free_from(&self, lease: Option<&ClaimLease>, now: Moment) -> Moment {
        let mine = |lease: &ClaimLease| lease.holder == self.identity;
        let Some((known, changed)) = &self.seen else {
            // The first look of this process.
            return match lease {
                Some(lease) if !lease.holder.is_empty() && !mine(lease) => {
                    now + self.durations.patience(lease.duration)
                }
                _ => now,
            };
        };
        let changed = if known.as_ref() == lease { *changed } else { now };
        match lease {
            // Nobody but us can have claimed it since we did: the version says so.
            Some(lease) if mine(lease) || lease.holder.is_empty() => now,
            Some(lease) => changed + self.durations.patience(lease.duration),
            // Somebody has deleted it: that ends no claim.
            None if self.holds(now) => now,
            None => changed + self.durations.patience(self.written),
        }
    }

    fn claim(&self, lease: Option<&ClaimLease>) -> Draft {
        let acquires = lease.is_none_or(|lease| lease.holder != self.identity);
        let transitions = lease.map_or(0, |lease| lease.transitions);
        Draft {
            replaces: lease.map(|lease| lease.version.clone()),
            holder: self.identity.clone(),
            seconds: self.durations.lease_seconds(),
            transitions: if acquires && lease.is_some() {
                transitions.saturating_add(1)
            } else {
                transitions
            },
            acquires,
        }
    }

    /// A write that was sent at `sent` has succeeded, and left the Lease like this.
    pub fn wrote(&mut self, lease: ClaimLease, sent: Moment, now: Moment) {
        let before = self.seen.as_ref().and_then(|(lease, _)| lease.as_ref());
        if before.is_some_and(|before| before.version == lease.version) {
            // The API server drops a write that changes nothing, which takes a wall clock that shows
            // the same microsecond twice. The others have seen no life.
            return self.unanswered(now);
        }
        self.valid_until = Some(sent + self.durations.renew_deadline());
        self.written = lease.duration;
        self.seen = Some((Some(lease), now));
        self.free_from = Some(now);
        self.rest_until = now + self.durations.retry_period();
    }

    /// A write was refused, because the Lease is no longer as it was drafted from: look at once.
    pub fn refused(&mut self) {
        self.refused = true;
        self.free_from = None;
    }

    /// A request has failed, or was not answered in time: what became of it is not known.
    pub fn unanswered(&mut self, now: Moment) {
        self.free_from = None;
        self.rest_until = now + self.durations.retry_period();
    }

    /// Gives the claim up. Returns what is to be written so that a rival may lead at once; none when
    /// the Lease is not known to be ours. The candidate must not be used for anything else then.
    pub fn release(&mut self) -> Option<Draft> {
        self.valid_until = None;
        let (lease, _) = self.seen.take()?;
        let lease = lease.filter(|lease| lease.holder == self.identity)?;
        Some(Draft {
            replaces: Some(lease.version),
            holder: String::new(),
            // As client-go does it, for those who read only this field.
            seconds: 1,
            transitions: lease.transitions,
            acquires: false,
        })
    }
}

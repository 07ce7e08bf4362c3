//! Leader election: the logic of one candidate, without clock and network.
//!
//! Candidates share one Lease and nothing else. Each measures time with its own monotonic clock, as everywhere in the
//! core (L1):
//!
//! * A candidate's **claim** holds until the moment at which its last successful request was *sent*, plus the renew
//!   deadline. The candidate knows that moment without a request. So its claim ends in time if the API server cannot
//!   be reached, and if the process was suspended.
//! * A **rival** takes over when it has seen no change of the Lease for nearly the lease duration
//!   ([`Durations::patience`]). It counts from the moment at which it *saw* the last change, which is later than the
//!   moment at which that change was sent.
//!
//! The renew deadline is shorter than the rival's wait, so two claims never hold at the same moment. The difference
//! leaves time for writes that are under way. Every write is conditional on the version that it was drafted from. So a
//! request that arrives late changes nothing; only one of two rivals wins; and the claim of a rival that has missed a
//! renewal is refused. A rival therefore need not read the Lease again before it claims. `renewTime` is written for
//! people to read and is never compared with a clock. Steps and skew of wall clocks neither end the leadership nor
//! give it to two replicas.
//!
//! Each term has a **number**, `leaseTransitions`. A holder with this number in the Lease stands for one term, in which
//! no other candidate led:
//!
//! * A claim that is drafted while the candidate leads keeps its number. It replaces a version that this candidate has
//!   written in this term. So if it succeeds, no other candidate has written in between. This also holds if the answer
//!   comes after the claim has lapsed.
//! * Every other claim writes a number above all that the candidate has seen, written or been told: one from another
//!   holder, one that creates the Lease, and one after the own claim has lapsed. The last one is needed even if the
//!   Lease still names this candidate with its number. A creation that was sent long ago may have arrived only now,
//!   after another candidate had led and its Lease was deleted.
//!
//! After the Lease was deleted, a candidate that never saw it begins at 0 again. Who knows the former numbers has to
//! tell ([`Candidate::exceed`]).

use std::time::Duration;

use crate::vocabulary::monotonic_time::MonotonicTime;

mod durations;
#[cfg(test)]
mod tests;

pub use durations::{Durations, DurationsError};

/// The fields that matter of the Lease that the candidates share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderLease {
    /// Its resourceVersion. Any change of it shows that the holder is alive.
    pub version: String,
    /// The identity of the leader; empty if the Lease was released.
    pub holder: String,
    /// How long rivals must wait for the holder.
    pub duration: Duration,
    /// The number of the term.
    pub transitions: i32,
}

/// What the caller has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Wait until this moment.
    Wait(MonotonicTime),
    /// Read the Lease, and pass the answer to [`Candidate::saw`].
    Read,
    /// Write this, and pass the answer to [`Candidate::wrote`].
    Write(Draft),
}

/// A write of the Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The version at which to update the Lease; `None` to create it. If the Lease is no longer in that state, the
    /// write must fail.
    pub replaces: Option<String>,
    /// The new holder; empty to release.
    pub holder: String,
    /// `leaseDurationSeconds`; not less than what the candidate itself waits for a holder.
    pub seconds: i32,
    /// The number of the term. It rises with each change of the holder, and with each claim after one that has lapsed.
    pub transitions: i32,
    /// Whether the holder changes. Then its acquire time has to be written.
    pub acquires: bool,
}

/// A process that wants to lead.
#[derive(Debug)]
pub struct Candidate {
    identity: String,
    durations: Durations,
    /// The Lease as last seen, and the moment at which it was first seen in that state; `None` before the first
    /// answer.
    seen: Option<(Option<LeaderLease>, MonotonicTime)>,
    /// From when on the candidate may overwrite the Lease as last seen; `None` if it must be read first.
    free_from: Option<MonotonicTime>,
    /// The duration that was last written. It is kept when the Lease is deleted.
    written: Duration,
    /// Whether the last write was refused.
    refused: bool,
    rest_until: MonotonicTime,
    valid_until: Option<MonotonicTime>,
    /// The number of the last claim.
    number: Option<i32>,
    /// The highest number that was seen or written.
    highest: Option<i32>,
    /// The highest number that was told.
    told: Option<i32>,
}

impl Candidate {
    /// A candidate that has seen nothing yet. The identity must differ from that of every other candidate, including
    /// earlier processes with the same name.
    pub fn new(identity: String, durations: Durations) -> Self {
        Self {
            identity,
            durations,
            seen: None,
            free_from: None,
            written: Duration::ZERO,
            refused: false,
            rest_until: MonotonicTime::default(),
            valid_until: None,
            number: None,
            highest: None,
            told: None,
        }
    }

    /// When the claim ends, whatever happens before; `None` if there is no claim.
    pub fn valid_until(&self) -> Option<MonotonicTime> {
        self.valid_until
    }

    /// Whether the claim holds at this moment.
    pub fn holds(&self, now: MonotonicTime) -> bool {
        self.valid_until.is_some_and(|until| now < until)
    }

    /// The number of the last claim; `None` before the first one.
    pub fn number(&self) -> Option<i32> {
        self.number
    }

    /// A number is known that another replica may have used in a term before. The next claim is above it. A claim that
    /// is not above it is made anew, by the next write. A number above that of the field counts as the largest one.
    pub fn exceed(&mut self, number: u64) {
        self.told = self.told.max(Some(i32::try_from(number).unwrap_or(i32::MAX)));
    }

    /// Ends the rest between two renewals. So what the caller has to write, or a claim with a higher number, is written
    /// at once. The rest after a failed request stays.
    pub fn hurry(&mut self, now: MonotonicTime) {
        if self.holds(now) && self.free_from.is_some_and(|from| from <= now) {
            self.rest_until = self.rest_until.min(now);
        }
    }

    /// The leader as last seen, for messages.
    pub fn leader(&self) -> Option<&str> {
        let (lease, _) = self.seen.as_ref()?;
        lease.as_ref().map(|lease| lease.holder.as_str()).filter(|holder| !holder.is_empty())
    }

    /// What to do now. After [`Move::Read`] and [`Move::Write`], the caller must report the outcome before it calls
    /// this again.
    pub fn next(&self, now: MonotonicTime) -> Move {
        match &self.seen {
            _ if now < self.rest_until => Move::Wait(self.rest_until),
            Some((lease, _)) if self.free_from.is_some_and(|from| from <= now) => {
                Move::Write(self.claim(lease.as_ref(), now))
            }
            _ => Move::Read,
        }
    }

    /// Takes in an answer to a read, or news from a watch, at `now`: the Lease, or that there is none. A watch may
    /// show an older state than an earlier read. That only costs time: it counts as a change, and a claim that is
    /// drafted from it is refused.
    pub fn saw(&mut self, lease: Option<LeaderLease>, now: MonotonicTime) {
        let free_from = self.free_from(lease.as_ref(), now);
        self.highest = self.highest.max(lease.as_ref().map(|lease| lease.transitions));
        self.written = lease.as_ref().map_or(self.written, |lease| lease.duration);
        let retry = now + self.durations.retry_period();
        let refused = std::mem::take(&mut self.refused);
        let mut stands_still = false;
        match &mut self.seen {
            Some((known, _)) if *known == lease => stands_still = true,
            seen => *seen = Some((lease, now)),
        }
        self.free_from = Some(free_from);
        // If a write was refused and the Lease has not changed, the next write would be refused, too.
        self.rest_until = if refused && stands_still { retry } else { free_from.clamp(now, retry) };
    }

    /// From when on the Lease in this state may be claimed.
    fn free_from(&self, lease: Option<&LeaderLease>, now: MonotonicTime) -> MonotonicTime {
        let mine = |lease: &LeaderLease| lease.holder == self.identity;
        let Some((known, changed)) = &self.seen else {
            // This process has not seen the Lease before.
            return match lease {
                Some(lease) if !lease.holder.is_empty() && !mine(lease) => {
                    now + self.durations.patience(lease.duration)
                }
                _ => now,
            };
        };
        let changed = if known.as_ref() == lease { *changed } else { now };
        match lease {
            // No other candidate can have claimed it since, because the version is unchanged.
            Some(lease) if mine(lease) || lease.holder.is_empty() => now,
            Some(lease) => changed + self.durations.patience(lease.duration),
            // The Lease was deleted. That ends no claim.
            None if self.holds(now) => now,
            None => changed + self.durations.patience(self.written),
        }
    }

    fn claim(&self, lease: Option<&LeaderLease>, now: MonotonicTime) -> Draft {
        let mine = lease.filter(|lease| lease.holder == self.identity);
        let goes_on = mine.filter(|lease| self.goes_on(lease, now));
        Draft {
            replaces: lease.map(|lease| lease.version.clone()),
            holder: self.identity.clone(),
            seconds: self.durations.lease_seconds(),
            transitions: goes_on.map_or_else(|| self.fresh_number(), |lease| lease.transitions),
            acquires: mine.is_none(),
        }
    }

    /// Whether a claim that is drafted now belongs to the same term as the last one.
    fn goes_on(&self, mine: &LeaderLease, now: MonotonicTime) -> bool {
        // There is no number above the largest one. Without this exception each renewal would begin a term.
        let is_largest = mine.transitions == i32::MAX;
        let is_above = self.told < Some(mine.transitions) || is_largest;
        self.holds(now) && self.number == Some(mine.transitions) && is_above
    }

    fn fresh_number(&self) -> i32 {
        self.highest.max(self.told).map_or(0, |number| number.saturating_add(1))
    }

    /// A write that was sent at `sent` has succeeded, and has left the Lease in this state.
    pub fn wrote(&mut self, lease: LeaderLease, sent: MonotonicTime, now: MonotonicTime) {
        let before = self.seen.as_ref().and_then(|(lease, _)| lease.as_ref());
        if before.is_some_and(|before| before.version == lease.version) {
            // The API server drops a write that changes nothing. This happens if the wall clock shows the same
            // microsecond twice. The other candidates have then seen no renewal.
            return self.unanswered(now);
        }
        self.valid_until = Some(sent + self.durations.renew_deadline());
        self.written = lease.duration;
        self.number = Some(lease.transitions);
        self.highest = self.highest.max(self.number);
        self.seen = Some((Some(lease), now));
        self.free_from = Some(now);
        self.rest_until = now + self.durations.retry_period();
    }

    /// A write was refused, because the Lease has changed since the draft. It is read again at once.
    pub fn refused(&mut self) {
        self.refused = true;
        self.free_from = None;
    }

    /// A request has failed, or was not answered in time. Its effect is unknown.
    pub fn unanswered(&mut self, now: MonotonicTime) {
        self.free_from = None;
        self.rest_until = now + self.durations.retry_period();
    }

    /// Gives the claim up. Returns a write that lets a rival lead at once; `None` if the Lease is not known to be held
    /// by this candidate. The candidate must not be used afterwards.
    pub fn release(&mut self) -> Option<Draft> {
        self.valid_until = None;
        let (lease, _) = self.seen.take()?;
        let lease = lease.filter(|lease| lease.holder == self.identity)?;
        Some(Draft {
            replaces: Some(lease.version),
            holder: String::new(),
            // As in client-go, for readers that look only at this field.
            seconds: 1,
            transitions: lease.transitions,
            acquires: false,
        })
    }
}

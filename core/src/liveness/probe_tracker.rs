//! The path of a beat from its write to this process, and how it is proven (L3).
//!
//! Each replica renews a Lease of its own, its probe, as workloads do. It counts a renewal only when the heartbeat
//! watch brings it back. That proves three things at once: beats can be written; the watch delivers; and everything
//! that was accepted before the renewal has been seen, because a watch delivers in the order of writing. Two proofs
//! that are further apart than [`Pace::tolerance`] have a gap between them.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use beatkeeper_api::heartbeat;

use crate::{
    liveness::{
        proven_time::{Gap, ProvenTime},
        rollback::{OurLease, RollbackDetector, RollbackSign},
        silence_log::SilenceLog,
        unproven::Unproven,
    },
    vocabulary::{
        key::Key,
        monotonic_time::MonotonicTime,
        pace::{Pace, SHORTEST_GAP},
        version::Version,
    },
};

/// The longest time between two renewals, even if no registration needs shorter ones.
pub const LONGEST_PERIOD: Duration = Duration::from_secs(10);

/// How long before a deadline a renewal is sent for it. On a control plane that is not overloaded, the renewal comes
/// back before the deadline passes.
const AHEAD: Duration = Duration::from_millis(25);

/// How long after its sending a renewal still covers a deadline. A renewal that is sent for one deadline also covers
/// those that follow closely.
const REACH: Duration = Duration::from_millis(50);

/// The longest time for which the operator stops its renewals because the API server asks for it. API Priority and
/// Fairness asks for up to 32 s; a load balancer may ask for any time.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Whether a renewal that was sent at `sent`, and has come back, proves the whole time up to a deadline that has
/// passed.
///
/// It does if it was sent after the deadline. It also does if it was sent a little before, and has come back so soon
/// that there is no gap up to now. The time that it leaves unproven is at most `REACH`, a tenth of the shortest gap.
/// The live read shows beats that were accepted in that time, because it is sent after the deadline. The second
/// condition is needed because a process may be suspended just before the deadline, together with the API server and
/// all clients. Without the condition, that process would count their standstill as proven time.
pub fn reaches(sent: MonotonicTime, deadline: MonotonicTime, now: MonotonicTime) -> bool {
    sent >= deadline || (sent + REACH >= deadline && now.since(sent) <= SHORTEST_GAP)
}

/// A renewal that was sent and has not come back.
#[derive(Debug, Clone, Copy)]
struct Renewal {
    token: i64,
    sent: MonotonicTime,
}

/// A renewal has come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// When it was sent.
    pub sent: MonotonicTime,
    /// Whether it ends a gap.
    pub ends_gap: bool,
}

/// The path of the beats into this process.
#[derive(Debug, Clone)]
pub struct ProbeTracker {
    gaps: ProvenTime,
    tolerance: Duration,
    period: Duration,
    /// When the last renewal that came back was sent; before the first one, when this process started.
    last: MonotonicTime,
    /// The same as `last`, but `None` before the first renewal comes back.
    proof: Option<MonotonicTime>,
    under_way: VecDeque<Renewal>,
    last_token: i64,
    /// Tokens are multiples of this.
    grain: i64,
    last_sent: Option<MonotonicTime>,
    silence_log: SilenceLog,
    /// Why the last renewal did not come back. `None` once a renewal has come back.
    failure: Option<Unproven>,
    awaited: Deadlines,
    rollback_detector: RollbackDetector,
    /// No renewal is sent before this moment, and none proves anything.
    paused_until: MonotonicTime,
}

/// The next deadline of each registration that has one.
#[derive(Debug, Clone, Default)]
struct Deadlines {
    of: HashMap<Key, MonotonicTime>,
    in_order: BTreeSet<(MonotonicTime, Key)>,
}

/// The largest number of renewals that are awaited at the same time. If there are more, the oldest is dropped.
const UNDER_WAY: usize = 64;

impl ProbeTracker {
    /// A path of which nothing is proven yet.
    pub fn new(now: MonotonicTime) -> Self {
        Self {
            gaps: ProvenTime::default(),
            tolerance: SHORTEST_GAP,
            period: LONGEST_PERIOD,
            last: now,
            proof: None,
            under_way: VecDeque::new(),
            last_token: 0,
            grain: 1,
            last_sent: None,
            silence_log: SilenceLog::default(),
            failure: None,
            awaited: Deadlines::default(),
            rollback_detector: RollbackDetector::default(),
            paused_until: now,
        }
    }

    /// Records the next deadline in this registration, so that a renewal comes back by then.
    pub fn await_deadline(&mut self, registration: &Key, deadline: Option<MonotonicTime>) {
        self.awaited.set(registration, deadline);
    }

    /// Adapts the renewals to the registration with the least slack. They are a quarter of that slack apart, but at
    /// least half of [`SHORTEST_GAP`] and at most [`LONGEST_PERIOD`].
    pub fn set_pace(&mut self, tightest: Option<Pace>) {
        let slack = tightest.map_or(LONGEST_PERIOD * 4, Pace::slack);
        self.period = (slack / 4).clamp(SHORTEST_GAP / 2, LONGEST_PERIOD);
        // The tolerance must not be less than the period, or the time between any two renewals would be a gap.
        self.tolerance =
            tightest.map_or(LONGEST_PERIOD * 2, Pace::tolerance).min(LONGEST_PERIOD * 2);
    }

    /// When to send the next renewal, unless one is requested before.
    pub fn next(&self, now: MonotonicTime) -> MonotonicTime {
        let Some(sent) = self.last_sent else { return now.max(self.paused_until) };
        let by_pace = sent + self.period;
        let next = self.awaited.first().map_or(by_pace, |deadline| by_pace.min(deadline - AHEAD));
        next.max(self.paused_until)
    }

    /// The API server has answered a renewal with a time to wait. Instances get the same answer and obey it, so their
    /// silence proves nothing until that time is over. Until then, the path counts as broken and no renewal is sent.
    /// Returns when that time ends; it is limited to [`LONGEST_PAUSE`].
    pub fn pause_for(&mut self, pause: Duration, now: MonotonicTime) -> MonotonicTime {
        self.paused_until = self.paused_until.max(now + pause.min(LONGEST_PAUSE));
        self.under_way.clear();
        self.paused_until
    }

    /// Whether no renewal may be sent yet.
    pub fn is_paused(&self, now: MonotonicTime) -> bool {
        now < self.paused_until
    }

    /// Whether a renewal is under way that may cover a deadline.
    pub fn is_under_way_for(&self, deadline: MonotonicTime, now: MonotonicTime) -> bool {
        self.under_way.back().is_some_and(|renewal| reaches(renewal.sent, deadline, now))
    }

    /// Records that a renewal is sent, and returns its token. The token is the renewTime in microseconds: `wall`, or
    /// more if needed, so that no two tokens are equal.
    pub fn send(&mut self, now: MonotonicTime, wall: i64) -> i64 {
        let token = heartbeat::whole(wall.max(self.last_token + 1), self.grain);
        self.last_token = token;
        self.last_sent = Some(now);
        self.awaited.forget_until(now + REACH);
        if self.under_way.len() == UNDER_WAY {
            self.under_way.pop_front();
        }
        self.under_way.push_back(Renewal { token, sent: now });
        token
    }

    /// A renewal was answered, but stored with another token than it was sent with. A webhook may do that. The watch
    /// brings the stored token, and the next tokens are multiples that are stored unchanged.
    pub fn stored(&mut self, sent: i64, stored: i64) {
        if sent == stored {
            return;
        }
        self.grain = self.grain.max(heartbeat::grain(stored));
        if let Some(renewal) = self.under_way.iter_mut().find(|renewal| renewal.token == sent) {
            renewal.token = stored;
        }
    }

    /// The watch shows the probe with this token. Returns `None` if that proves nothing: the token does not belong to
    /// a renewal of this replica, or has come back before.
    pub fn came_back(&mut self, token: i64, version: Version, now: MonotonicTime) -> Option<Proof> {
        let place = self.under_way.iter().position(|renewal| renewal.token == token)?;
        // Older renewals will not come back, because the object has been overwritten.
        let Renewal { sent, .. } = self.under_way.drain(..=place).next_back()?;
        let gap = now.since(self.last) > self.tolerance;
        if gap {
            self.gaps.note(Gap { from: self.last, to: now });
        }
        // The time before the first proof is not proven, so another process must not build on it.
        let further =
            if gap || self.proof.is_none() { Duration::ZERO } else { sent.since(self.last) };
        self.silence_log.record(further, version, now.since(sent));
        self.last = sent;
        self.proof = Some(sent);
        self.failure = None;
        Some(Proof { sent, ends_gap: gap })
    }

    /// A renewal could not be written, or did not come back.
    pub fn failed(&mut self, why: Unproven) {
        self.failure = Some(why);
    }

    /// The proven time in the past. A gap that has not ended is not in it yet: while it lasts, there is no proof that
    /// was sent after a deadline.
    pub fn proven_time(&self) -> &ProvenTime {
        &self.gaps
    }

    /// When the last renewal that came back was sent; `None` before the first one.
    pub fn proof(&self) -> Option<MonotonicTime> {
        self.proof
    }

    /// Why no renewal comes back; `None` if renewals come back.
    pub fn failure(&self) -> Option<&Unproven> {
        self.failure.as_ref()
    }

    /// What is known of this replica's own Lease.
    pub fn rollback_detector(&mut self) -> &mut RollbackDetector {
        &mut self.rollback_detector
    }

    /// The watch shows this replica's own Lease. Returns `None` as [`Self::came_back`] does.
    pub fn shown(&mut self, lease: OurLease, now: MonotonicTime) -> Option<Proof> {
        let OurLease { token, version, .. } = lease;
        self.rollback_detector.shown(lease);
        self.came_back(token, version, now)
    }

    /// The store has gone back to an earlier state. Nothing that was seen before proves anything about its state now.
    pub fn reset_after_rollback(&mut self, sign: RollbackSign) {
        self.rollback_detector.forget();
        self.silence_log.forget_marks();
        self.under_way.clear();
        self.last_sent = None;
        self.proof = None;
        self.failure = Some(sign.into());
    }

    /// What a later process needs to know of this one (L5).
    pub fn silence_log(&self) -> &SilenceLog {
        &self.silence_log
    }

    /// Continues from the memory of an earlier process. Has an effect only before the first proof.
    pub fn resume(&mut self, silence_log: SilenceLog) {
        if self.proof.is_none() {
            self.silence_log = silence_log;
        }
    }
}

impl Deadlines {
    fn set(&mut self, registration: &Key, deadline: Option<MonotonicTime>) {
        if let Some(before) = self.of.remove(registration) {
            self.in_order.remove(&(before, registration.clone()));
        }
        if let Some(deadline) = deadline {
            self.of.insert(registration.clone(), deadline);
            self.in_order.insert((deadline, registration.clone()));
        }
    }

    fn first(&self) -> Option<MonotonicTime> {
        self.in_order.first().map(|(deadline, _)| *deadline)
    }

    fn forget_until(&mut self, moment: MonotonicTime) {
        while self.first().is_some_and(|deadline| deadline <= moment) {
            if let Some((_, registration)) = self.in_order.pop_first() {
                self.of.remove(&registration);
            }
        }
    }
}

#[cfg(test)]
mod tests;

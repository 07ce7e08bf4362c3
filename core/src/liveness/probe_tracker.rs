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
        rollback::{OurLease, RollbackDetector},
        silence_log::SilenceLog,
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
    failure: Option<String>,
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
    pub fn failed(&mut self, why: String) {
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
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
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
    pub fn reset_after_rollback(&mut self, why: String) {
        self.rollback_detector.forget();
        self.silence_log.forget_marks();
        self.under_way.clear();
        self.last_sent = None;
        self.proof = None;
        self.failure = Some(why);
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
mod tests {
    use super::*;

    fn at(millis: u64) -> MonotonicTime {
        MonotonicTime::from_millis(millis)
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A path for ttl 5 s and interval 1 s: one renewal per second, tolerance 1.5 s.
    fn tracker() -> ProbeTracker {
        let mut tracker = ProbeTracker::new(at(0));
        tracker.set_pace(Some(Pace { ttl: millis(5000), interval: millis(1000) }));
        tracker
    }

    fn probe(tracker: &mut ProbeTracker, sent: u64, back: u64) {
        let token = tracker.send(at(sent), 0);
        assert!(tracker.came_back(token, Version(sent), at(back)).is_some());
    }

    fn gaps(gaps: &[(u64, u64)]) -> ProvenTime {
        ProvenTime::with_gaps(
            gaps.iter().map(|&(from, to)| Gap { from: at(from), to: at(to) }).collect(),
        )
    }

    #[test]
    fn renewals_that_come_back_in_time_prove_everything() {
        let mut tracker = tracker();
        for n in 0..10 {
            probe(&mut tracker, n * 1000, n * 1000 + 5);
        }
        assert_eq!(*tracker.proven_time(), ProvenTime::without_gaps());
        assert_eq!(tracker.proof(), Some(at(9000)), "as of when it was sent");
        assert_eq!(tracker.next(at(9500)), at(10_000));
    }

    #[test]
    fn renewals_are_recognised_although_a_webhook_cuts_renew_times() {
        let second = 1_000_000;
        let mut tracker = tracker();
        let token = tracker.send(at(0), 7 * second + 400_000);
        tracker.stored(token, 7 * second);
        assert!(tracker.came_back(7 * second, Version(1), at(5)).is_some());
        // The watch may be faster than the answer.
        for n in 1..10 {
            let token = tracker.send(at(n * 1000), 7 * second + 500_000);
            assert_eq!(token % second, 0, "it is stored as it is");
            assert!(tracker.came_back(token, Version(n + 1), at(n * 1000 + 5)).is_some());
            tracker.stored(token, token);
        }
        assert_eq!(*tracker.proven_time(), ProvenTime::without_gaps());
    }

    #[test]
    fn a_renewal_is_sent_ahead_of_a_deadline_and_serves_those_that_follow_closely() {
        let (one, other) = (Key::new("shop", "one"), Key::new("shop", "other"));
        let mut tracker = tracker();
        tracker.send(at(0), 0);
        tracker.await_deadline(&one, Some(at(500)));
        tracker.await_deadline(&other, Some(at(525)));
        assert_eq!(tracker.next(at(0)), at(475));
        tracker.send(at(475), 0);
        assert_eq!(tracker.next(at(475)), at(1475), "the other is served as well");
        tracker.await_deadline(&one, Some(at(526)));
        assert_eq!(tracker.next(at(475)), at(501));
        tracker.await_deadline(&one, None);
        assert_eq!(tracker.next(at(475)), at(1475), "it beats again");
    }

    #[test]
    fn during_a_retry_after_no_probe_is_sent_and_no_time_is_proven() {
        let mut tracker = tracker();
        probe(&mut tracker, 0, 5);
        let token = tracker.send(at(1000), 0);
        assert_eq!(tracker.pause_for(millis(4000), at(1010)), at(5010));
        tracker.await_deadline(&Key::new("shop", "one"), Some(at(2000)));
        assert_eq!(tracker.next(at(1010)), at(5010), "whatever is due");
        assert!(tracker.is_paused(at(5009)) && !tracker.is_paused(at(5010)));
        assert_eq!(tracker.came_back(token, Version(2), at(1020)), None);
        probe(&mut tracker, 5010, 5020);
        assert_eq!(*tracker.proven_time(), gaps(&[(0, 5020)]));
        assert_eq!(tracker.pause_for(millis(3_600_000), at(6000)), at(66_000));
    }

    #[test]
    fn one_that_comes_too_late_for_its_deadline_is_sent_at_once() {
        let mut tracker = tracker();
        tracker.send(at(0), 0);
        tracker.await_deadline(&Key::new("shop", "one"), Some(at(51)));
        assert!(tracker.next(at(700)) < at(700));
    }

    #[test]
    fn a_renewal_reaches_a_little_beyond_its_sending_while_no_gap_can_have_begun() {
        assert!(
            reaches(at(1000), at(1000), at(9000)),
            "sent after the deadline, whenever it is back"
        );
        assert!(reaches(at(1000), at(1050), at(1500)));
        assert!(!reaches(at(1000), at(1051), at(1060)), "too long before the deadline");
        assert!(!reaches(at(1000), at(1050), at(1501)), "everything may have stood still since");
    }

    #[test]
    fn one_that_is_under_way_is_known_until_it_is_back() {
        let mut tracker = tracker();
        let token = tracker.send(at(475), 0);
        assert!(tracker.is_under_way_for(at(500), at(501)));
        assert!(!tracker.is_under_way_for(at(526), at(527)));
        tracker.came_back(token, Version(1), at(502));
        assert!(!tracker.is_under_way_for(at(500), at(503)));
    }

    #[test]
    fn before_the_first_proof_there_is_none() {
        let mut tracker = tracker();
        assert_eq!((tracker.proof(), tracker.next(at(7))), (None, at(7)));
        probe(&mut tracker, 3000, 3001);
        assert_eq!(*tracker.proven_time(), gaps(&[(0, 3001)]), "since this process began");
    }

    #[test]
    fn a_gap_lasts_from_when_the_last_proof_was_sent_to_when_the_next_one_is_back() {
        let mut tracker = tracker();
        probe(&mut tracker, 0, 5);
        probe(&mut tracker, 1000, 1400);
        probe(&mut tracker, 2000, 2600);
        assert_eq!(*tracker.proven_time(), gaps(&[(1000, 2600)]));
    }

    #[test]
    fn one_that_is_overtaken_or_comes_back_twice_proves_nothing() {
        let mut tracker = tracker();
        let (first, second) = (tracker.send(at(0), 7), tracker.send(at(100), 7));
        assert_ne!(first, second, "no two are equal");
        assert!(tracker.came_back(second, Version(2), at(110)).is_some());
        assert_eq!(tracker.came_back(second, Version(2), at(120)), None, "again, after a relist");
        assert_eq!(tracker.came_back(first, Version(1), at(130)), None);
        assert_eq!(tracker.proof(), Some(at(100)));
    }

    #[test]
    fn a_renewal_without_an_answer_counts_when_the_watch_shows_it() {
        let mut tracker = tracker();
        let token = tracker.send(at(0), 0);
        tracker.failed("no answer within 5s".to_owned());
        assert_eq!(tracker.failure(), Some("no answer within 5s"));
        assert!(tracker.came_back(token, Version(1), at(900)).is_some());
        assert_eq!((tracker.failure(), tracker.proof()), (None, Some(at(0))));
    }

    #[test]
    fn the_tightest_registration_sets_the_pace_within_bounds() {
        let period = |ttl, interval| {
            let mut tracker = ProbeTracker::new(at(0));
            tracker.set_pace(Some(Pace { ttl: millis(ttl), interval: millis(interval) }));
            tracker.send(at(0), 0);
            tracker.next(at(0)).since(at(0))
        };
        assert_eq!(period(90_000, 60_000), millis(7_500));
        assert_eq!(period(1_000, 900), millis(250));
        assert_eq!(period(86_400_000, 1_000), LONGEST_PERIOD);
        let mut tracker = ProbeTracker::new(at(0));
        tracker.set_pace(None);
        tracker.send(at(0), 0);
        assert_eq!(tracker.next(at(0)), at(10_000));
    }

    #[test]
    fn renewals_that_never_come_back_do_not_pile_up() {
        let mut tracker = tracker();
        for n in 0..10_000 {
            tracker.send(at(n), 0);
        }
        assert_eq!(tracker.under_way.len(), UNDER_WAY);
    }
}

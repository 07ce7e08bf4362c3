//! The renewTimes that beats carry.

use beatkeeper_api::heartbeat;
use jiff::Timestamp;

/// Hands out renewTimes that only increase.
///
/// A renewTime is never compared with a clock, so it need not be right. But a beat with the renewTime of the
/// one before changes nothing. The API server answers such a beat with success and sends no event: the
/// instance would seem silent although all its beats are accepted. A wall clock that stands still or is set
/// back must not cause this.
///
/// A webhook may truncate a renewTime ([`heartbeat::grain`]). Once the API server has stored another time
/// than it was sent, only times are handed out that it stores unchanged.
#[derive(Debug, Clone, Copy)]
pub struct RenewTimes {
    last: Option<Timestamp>,
    /// All times from now on are multiples of this many microseconds.
    grain: i64,
}

impl Default for RenewTimes {
    fn default() -> Self {
        Self::after(None)
    }
}

impl RenewTimes {
    /// Starts after a time that is already in the Lease.
    pub fn after(last: Option<Timestamp>) -> Self {
        Self { last, grain: 1 }
    }

    /// Returns the time of the next beat: the later of the wall clock and one microsecond (the precision on
    /// the wire) after the last time. Where the API server does not keep microseconds, it is in whole seconds
    /// or milliseconds.
    pub fn next(&mut self, wall: Timestamp) -> Timestamp {
        let wall = wall.as_microsecond();
        let least = self.last.map_or(wall, |last| wall.max(last.as_microsecond() + 1));
        // At the end of the range of time, any other value will do.
        let next =
            [least, wall].map(|at| Timestamp::from_microsecond(heartbeat::whole(at, self.grain)));
        let next = next.into_iter().find_map(Result::ok).unwrap_or(Timestamp::UNIX_EPOCH);
        self.last = Some(next);
        next
    }

    /// Records that the API server has accepted the time `sent`, and has stored the time `stored`.
    pub fn accepted(&mut self, sent: Timestamp, stored: Option<Timestamp>) {
        if let Some(stored) = stored.filter(|stored| *stored != sent) {
            self.grain = self.grain.max(heartbeat::grain(stored.as_microsecond()));
        }
        self.advance_past(stored);
    }

    /// The latest time that was handed out or seen.
    pub fn latest(&self) -> Option<Timestamp> {
        self.last
    }

    /// Records a time that was seen in the Lease: all later times are greater.
    pub fn advance_past(&mut self, seen: Option<Timestamp>) {
        self.last = self.last.max(seen);
    }
}

/// The maximum length of the list of renewTimes that were sent without an answer. No ttl has time for more
/// tries.
const UNANSWERED_MAX: usize = 64;

/// The renewTimes that this process has written or may have written.
#[derive(Debug, Clone, Default)]
pub struct WrittenTimes {
    pub(super) confirmed: Option<Timestamp>,
    unanswered: Vec<Timestamp>,
}

impl WrittenTimes {
    /// Records a renewTime that is being sent.
    pub fn sending(&mut self, at: Timestamp) {
        if self.unanswered.len() == UNANSWERED_MAX {
            self.unanswered.remove(0);
        }
        self.unanswered.push(at);
    }

    /// Records that a renewTime was accepted, which overwrites all earlier ones. `stored` is the time in the
    /// answer. It may differ from the time that was sent, because a webhook may truncate it.
    pub fn accepted(&mut self, stored: Option<Timestamp>) {
        *self = Self { confirmed: stored, unanswered: Vec::new() };
    }

    /// Records that a renewTime was refused, and so never written.
    pub fn refused(&mut self, at: Timestamp) {
        self.unanswered.retain(|one| *one != at);
    }

    /// The renewTime that the Lease has if no other process beats for it. `None` while an answer is missing.
    pub fn expected(&self) -> Option<Timestamp> {
        self.confirmed.filter(|_| self.unanswered.is_empty())
    }

    /// Whether this process may have written this renewTime.
    pub fn contains(&self, at: Option<Timestamp>) -> bool {
        at.is_some_and(|at| self.confirmed == Some(at) || self.unanswered.contains(&at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_microsecond(micros).expect("in range")
    }

    #[test]
    fn a_renew_time_is_the_wall_clock_cut_to_microseconds() {
        let wall = Timestamp::from_nanosecond(1_000_000_000_999).expect("in range");
        assert_eq!(RenewTimes::default().next(wall), at(1_000_000_000));
    }

    #[test]
    fn times_grow_while_the_wall_clock_stands_or_goes_back() {
        let mut times = RenewTimes::default();
        let walls = [500, 500, 100, 502, 503, 600];
        let given: Vec<_> = walls.iter().map(|&wall| times.next(at(wall))).collect();
        assert_eq!(given, [500, 501, 502, 503, 504, 600].map(at));
    }

    #[test]
    fn nanoseconds_apart_are_microseconds_apart_on_the_wire() {
        let mut times = RenewTimes::default();
        let first = times.next(Timestamp::from_nanosecond(1_100).expect("in range"));
        let second = times.next(Timestamp::from_nanosecond(1_900).expect("in range"));
        assert_eq!((first, second), (at(1), at(2)));
    }

    #[test]
    fn a_taken_over_lease_continues_after_the_time_it_holds() {
        assert_eq!(RenewTimes::after(Some(at(900))).next(at(100)), at(901));
        let mut times = RenewTimes::after(Some(at(5)));
        times.advance_past(Some(at(3)));
        times.advance_past(None);
        assert_eq!(times.next(at(0)), at(6));
    }

    #[test]
    fn where_times_are_cut_only_such_are_handed_out_as_are_kept() {
        let second = |seconds: i64| at(seconds * 1_000_000);
        let mut times = RenewTimes::default();
        let sent = times.next(at(1_400_000));
        times.accepted(sent, Some(second(1)));
        let given = [1_500_000, 1_600_000, 5_000_000].map(|wall| times.next(at(wall)));
        assert_eq!(given, [second(2), second(3), second(5)]);
        times.accepted(given[2], Some(given[2]));
        assert_eq!(times.next(at(5_100_000)), second(6), "it is cut on");

        let mut times = RenewTimes::default();
        let sent = times.next(at(1_400));
        times.accepted(sent, Some(at(2_000)));
        assert_eq!(times.next(at(1_500)), at(3_000), "rounded up");
        // A time that is stored unchanged says nothing about the grain, and neither does a missing one.
        let mut times = RenewTimes::default();
        let sent = times.next(second(7));
        times.accepted(sent, Some(sent));
        times.accepted(sent, None);
        assert_eq!(times.next(second(7)), at(7_000_001));
    }

    #[test]
    fn the_end_of_all_time_does_not_stop_the_heart() {
        let mut times = RenewTimes::after(Some(Timestamp::MAX));
        assert_eq!(times.next(at(7)), at(7));
        assert_eq!(times.next(at(7)), at(8));
    }

    #[test]
    fn what_a_lease_should_hold_is_known_while_no_answer_is_missing() {
        let mut written = WrittenTimes::default();
        written.accepted(Some(at(10)));
        assert_eq!(written.expected(), Some(at(10)));
        written.sending(at(11));
        assert_eq!(written.expected(), None);
        written.refused(at(11));
        assert_eq!(written.expected(), Some(at(10)));
        written.sending(at(12));
        written.accepted(Some(at(12)));
        assert!(!written.contains(Some(at(10))) && written.contains(Some(at(12))));
        assert!(!written.contains(None));
    }
}

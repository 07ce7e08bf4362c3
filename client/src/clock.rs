//! The times that beats carry.

use jiff::{Timestamp, ToSpan};

/// Hands out renewTimes that only grow.
///
/// Nobody compares a renewTime with a clock, so it need not be right. But a beat with the time of
/// the one before changes nothing, and the API server takes a change of nothing for a success
/// without an event: the instance would fall silent while all its beats are accepted. A wall clock
/// that stands still or is set back must not do that.
#[derive(Debug, Clone, Copy, Default)]
pub struct RenewTimes {
    last: Option<Timestamp>,
}

impl RenewTimes {
    /// Starts after a time that is already in the Lease.
    pub fn after(last: Option<Timestamp>) -> Self {
        Self { last }
    }

    /// The time of the next beat: what the wall clock says, or one microsecond, the precision of the
    /// wire, after the last one, whichever is later.
    pub fn next(&mut self, wall: Timestamp) -> Timestamp {
        let wall = whole_micros(wall);
        let next = match self.last {
            None => wall,
            // At the end of all time any other value will do.
            Some(last) => whole_micros(last)
                .checked_add(1.microsecond())
                .map_or(wall, |least| least.max(wall)),
        };
        self.last = Some(next);
        next
    }

    /// The latest one that was handed out or seen.
    pub fn latest(&self) -> Option<Timestamp> {
        self.last
    }

    /// Never goes back below a time that was seen in the Lease.
    pub fn advance_past(&mut self, seen: Option<Timestamp>) {
        self.last = self.last.max(seen);
    }
}

fn whole_micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
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
    fn the_end_of_all_time_does_not_stop_the_heart() {
        let mut times = RenewTimes::after(Some(Timestamp::MAX));
        assert_eq!(times.next(at(7)), at(7));
        assert_eq!(times.next(at(7)), at(8));
    }
}

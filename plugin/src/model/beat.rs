//! When an instance beat last.
//!
//! `spec.renewTime` is a time by the clock of the process that beats, and that clock may be wrong. The API server notes
//! with its own clock, in whole seconds, when a manager last changed the fields that it owns. The two together give the
//! moment of the last beat, whatever the clock of the process says.

use jiff::{SignedDuration, Timestamp};

/// If the two differ by less, renewTime gives the fraction of the second.
const SAME: SignedDuration = SignedDuration::from_secs(2);

/// A smaller difference is no sign of a wrong clock: a request may wait for long, and be sent again.
const TOLERATED: SignedDuration = SignedDuration::from_secs(30);

/// The last beat of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// When it arrived, by the clock of the API server.
    pub at: Timestamp,
    /// How far the clock of the process is ahead; zero if hardly, or if that is not known.
    pub ahead: SignedDuration,
}

impl Beat {
    /// The last beat, from `spec.renewTime` and from the API server's note of when it was written; `None` if neither
    /// can be read.
    pub fn of(renewed: Option<Timestamp>, written: Option<Timestamp>) -> Option<Self> {
        let at_its_word = |at| Self { at, ahead: SignedDuration::ZERO };
        let (Some(renewed), Some(written)) = (renewed, written) else {
            return renewed.or(written).map(at_its_word);
        };
        let ahead = renewed.duration_since(written);
        if ahead.abs() > TOLERATED {
            return Some(Self { at: written, ahead });
        }
        if ahead.abs() > SAME {
            return Some(at_its_word(written));
        }
        // The note has whole seconds, and the beat has fractions.
        let until = written.saturating_add(SignedDuration::from_secs(1)).unwrap_or(written);
        Some(at_its_word(renewed.clamp(written, until)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn a_clock_that_is_right_gives_the_fraction_of_the_second() {
        let beat = Beat::of(Some(at(10_400)), Some(at(10_000))).unwrap();
        assert_eq!(beat, Beat { at: at(10_400), ahead: SignedDuration::ZERO });
        assert_eq!(Beat::of(Some(at(9_700)), Some(at(10_000))).unwrap().at, at(10_000));
        assert_eq!(Beat::of(Some(at(11_900)), Some(at(10_000))).unwrap().at, at(11_000));
    }

    #[test]
    fn a_clock_that_is_wrong_is_not_believed_and_is_named() {
        let beat = Beat::of(Some(at(310_400)), Some(at(10_000))).unwrap();
        assert_eq!(beat.at, at(10_000));
        assert_eq!(beat.ahead, SignedDuration::from_millis(300_400));
        assert!(Beat::of(Some(at(1)), Some(at(310_000))).unwrap().ahead.is_negative());
    }

    #[test]
    fn a_request_that_took_long_is_no_sign_of_a_wrong_clock() {
        let beat = Beat::of(Some(at(1_400)), Some(at(10_000))).unwrap();
        assert_eq!(beat, Beat { at: at(10_000), ahead: SignedDuration::ZERO });
    }

    #[test]
    fn one_of_the_two_is_enough() {
        assert_eq!(Beat::of(Some(at(5)), None).unwrap().at, at(5));
        assert_eq!(Beat::of(None, Some(at(7))).unwrap().at, at(7));
        assert_eq!(Beat::of(None, None), None);
    }
}

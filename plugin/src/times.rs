//! Spans of time for people, as kubectl writes ages.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The time that has passed between two moments; zero if the first is the later one.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// A span of time in at most two units, such as `4m10s`. Below ten seconds it has a tenth, so that a beat can be seen.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: u64, unit: &str, small: u64, of: &str| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{of}"),
    };
    match seconds {
        0..10 => format!("{}.{}s", seconds, time.subsec_millis() / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => two(minutes, "m", seconds % 60, "s"),
        3600..86_400 => two(hours, "h", minutes % 60, "m"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

/// A span of time in whole seconds or longer units.
pub fn whole_span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..10 => format!("{seconds}s"),
        _ => span(time),
    }
}

/// How far a clock is ahead or behind.
pub fn difference(ahead: SignedDuration) -> String {
    let span = whole_span(ahead.unsigned_abs());
    if ahead.is_negative() { format!("{span} behind") } else { format!("{span} ahead") }
}

/// A moment as time of day, by UTC.
pub fn of_day(at: Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

/// A moment with its date, by UTC.
pub fn full(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A moment as Kubernetes writes it, in whole seconds.
pub fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_at_most_two_units() {
        for (millis, text) in [
            (0, "0.0s"),
            (1_250, "1.2s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (250_000, "4m10s"),
            (3_600_000, "1h"),
            (90_000_000, "1d1h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
        assert_eq!(whole_span(Duration::from_millis(1_250)), "1s");
    }

    #[test]
    fn a_clock_is_ahead_or_behind() {
        assert_eq!(difference(SignedDuration::from_secs(-250)), "4m10s behind");
        assert_eq!(difference(SignedDuration::from_secs(61)), "1m1s ahead");
    }
}

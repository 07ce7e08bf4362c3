//! Pauses after failures and after writes.

use std::time::Duration;

/// The longest pause after a write.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The pause after this many failures in a row: from 0.1 s to 5 s, with a random part, so that retries do not come
/// all at once.
pub(crate) fn after(failures: u32) -> Duration {
    let longest = Duration::from_millis(200) * 2_u32.pow(failures.min(5));
    longest.min(Duration::from_secs(5)).mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// The pause after a write that took `took`: four times as long, at most 5 s. So the writes of one object take at
/// most a fifth of the time, except where the longest pause applies. A status is the most expensive object to
/// write, and a series of deaths would cause one write per death. The pause leaves the API server free for the
/// writes that prune, and each status that is written is the latest. The same rule applies to Endpoints.
pub(crate) fn after_write(took: Duration) -> Duration {
    (took * 4).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_of_a_status_take_a_fifth_of_the_time_unless_the_pause_would_exceed_its_limit() {
        let pause = |millis| after_write(Duration::from_millis(millis)).as_millis();
        assert_eq!((pause(0), pause(10), pause(1_000), pause(60_000)), (0, 40, 4_000, 5_000));
    }
}

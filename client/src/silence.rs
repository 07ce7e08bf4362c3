//! Finds out, by our own clock, whether another process has fallen silent.

use std::time::Duration;

use tokio::time::Instant;

use crate::schedule::Pace;

/// Watches, by our own clock, a text that another process changes as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SilenceWatch {
    seen: Option<String>,
    /// Since when the text has been seen unchanged.
    since: Instant,
    /// When the text was last read.
    last_read: Instant,
}

impl SilenceWatch {
    /// Begins with the text that was just seen for the first time.
    pub fn begin(seen: Option<String>, now: Instant) -> Self {
        Self { seen, since: now, last_read: now }
    }

    /// Records that the text was read again. If it could not be read for long, the other process may not have
    /// been able to change it either, so the time before that does not count.
    pub fn look(&mut self, seen: Option<String>, now: Instant, pace: &Pace) {
        if self.seen != seen || now - self.last_read > Self::blind_after(pace) {
            self.since = now;
        }
        self.seen = seen;
        self.last_read = now;
    }

    /// Returns the text that was last seen.
    pub fn seen(&self) -> Option<&str> {
        self.seen.as_deref()
    }

    /// When the other process will have been silent for a ttl, if the text does not change before.
    pub fn ends(&self, pace: &Pace) -> Instant {
        self.since + pace.ttl()
    }

    /// Whether the other process has been silent for a ttl.
    pub fn is_over(&self, now: Instant, pace: &Pace) -> bool {
        now >= self.ends(pace) && now - self.last_read <= Self::blind_after(pace)
    }

    fn blind_after(pace: &Pace) -> Duration {
        pace.interval() + (pace.ttl() - pace.interval()) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        let spec = beatkeeper_api::ServiceRegistrationSpec {
            ttl: "30s".to_owned(),
            interval: "10s".to_owned(),
            ..Default::default()
        };
        let registration = beatkeeper_api::ServiceRegistration::new("greeter", spec);
        Pace::of(&registration, None).expect("a pace")
    }

    #[tokio::test(start_paused = true)]
    async fn another_process_is_silent_after_a_watched_ttl_without_a_beat() {
        let (pace, began) = (pace(), Instant::now());
        let second = Duration::from_secs(1);
        let mut silence = SilenceWatch::begin(Some("a".to_owned()), began);
        for seconds in [10, 20, 29] {
            silence.look(Some("a".to_owned()), began + second * seconds, &pace);
            assert!(!silence.is_over(began + second * seconds, &pace));
        }
        assert!(silence.is_over(began + second * 30, &pace));
        assert_eq!(silence.ends(&pace), began + second * 30);
        silence.look(Some("b".to_owned()), began + second * 30, &pace);
        assert!(!silence.is_over(began + second * 40, &pace));
    }

    #[tokio::test(start_paused = true)]
    async fn time_without_observations_counts_for_neither_process() {
        let (pace, began) = (pace(), Instant::now());
        let second = Duration::from_secs(1);
        let mut silence = SilenceWatch::begin(None, began);
        // The API server was away.
        silence.look(None, began + second * 300, &pace);
        assert!(!silence.is_over(began + second * 300, &pace));
        silence.look(None, began + second * 315, &pace);
        assert!(silence.is_over(began + second * 330, &pace));
        assert!(!silence.is_over(began + second * 600, &pace), "it was not looked at since");
    }
}

//! The backoff of watches: how long a broken watch waits before it is begun again.

use std::time::Duration;

use kube::runtime::{utils::Backoff, watcher::ExponentialBackoff};
use tokio::time::Instant;

const SHORTEST: Duration = Duration::from_millis(200);
/// kube's own default goes up to half a minute. For that long nothing new would be published after an outage.
/// With its random part a pause may be up to twice as long.
const LONGEST: Duration = Duration::from_secs(2);
/// A watch that breaks later than this after the last pause was healthy in between.
const WELL: Duration = Duration::from_secs(3);

/// Pauses that grow with each failure in a row.
///
/// They are reset only by time. kube resets its backoff with each event that is no error, and a watcher
/// announces a list before it requests it. So kube would request a list that fails every fifth of a second, for
/// ever.
pub(crate) struct WatchBackoff {
    pauses: ExponentialBackoff,
    /// When the last pause ended.
    last: Option<Instant>,
}

impl WatchBackoff {
    pub(crate) fn new() -> Self {
        let pauses = backon::ExponentialBuilder::default()
            .with_min_delay(SHORTEST)
            .with_max_delay(LONGEST)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times();
        Self { pauses: pauses.into(), last: None }
    }

    /// The pause after a failure.
    fn after(&mut self, failure: Instant) -> Option<Duration> {
        if self.last.is_some_and(|last| failure.saturating_duration_since(last) > WELL) {
            self.pauses.reset();
        }
        let pause = self.pauses.next();
        self.last = Some(failure + pause.unwrap_or_default());
        pause
    }
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.after(Instant::now())
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_until_a_watch_has_worked_for_a_while() {
        let mut pauses = WatchBackoff::new();
        let mut now = Instant::now();
        let mut after = |well: Duration| {
            let pause = pauses.after(now + well).expect("a pause");
            now += well + pause;
            pause
        };
        // Each pause has a random part of up to its own length.
        assert!(after(Duration::ZERO) < SHORTEST * 2);
        for _ in 0..5 {
            after(Duration::ZERO);
        }
        assert!((LONGEST..LONGEST * 2).contains(&after(WELL)));
        assert!(after(WELL + Duration::from_millis(1)) < SHORTEST * 2);
    }

    #[test]
    fn events_without_an_error_do_not_reset_the_backoff() {
        let mut pauses = WatchBackoff::new();
        for _ in 0..6 {
            pauses.next();
            pauses.reset();
        }
        assert!(pauses.next() >= Some(LONGEST));
    }
}

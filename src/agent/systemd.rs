//! What systemd is told of us, where it has started us with `Type=notify`. Everywhere else these do nothing.

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

/// The first beat was accepted.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// We are about to end.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

/// Tells again and again, twice within `WatchdogSec`, that the loop that beats still runs; for ever.
pub async fn keep_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return std::future::pending().await;
    };
    let mut ticks = interval(limit / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tell(NotifyState::Watchdog);
    }
}

/// A service manager that does not listen is no reason to stop.
fn tell(state: NotifyState<'_>) {
    let _ = sd_notify::notify(&[state]);
}

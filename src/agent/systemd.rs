//! What systemd is told of us, where it has started us with `Type=notify`. Everywhere else these do nothing.
//!
//! A service manager that does not read its socket blocks the thread that writes to it. So a separate thread writes.

use std::{
    sync::{
        OnceLock,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

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

/// A service manager that does not listen is no reason to stop, and none to wait.
fn tell(state: NotifyState<'static>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    static QUEUE: OnceLock<SyncSender<NotifyState<'static>>> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        let (queue, states) = sync_channel::<NotifyState<'static>>(8);
        let telling = move || {
            while let Ok(state) = states.recv() {
                let _ = sd_notify::notify(&[state]);
            }
        };
        let _ = thread::Builder::new().name("systemd".to_owned()).spawn(telling);
        queue
    });
    let _ = queue.try_send(state);
}

//! Notifies systemd, if systemd has started the agent with `Type=notify` or `Type=notify-reload`. Otherwise
//! these functions do nothing.
//!
//! A service manager that does not read its socket blocks the thread that writes to it, so a separate thread
//! writes. State changes wait in its queue without a limit. At most one watchdog message waits.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Sender, channel},
    },
    thread,
};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

type States = Vec<NotifyState<'static>>;

/// A watchdog message is on its way.
static LIVES: AtomicBool = AtomicBool::new(false);

/// Each instance has had a first beat accepted since the start, or since the settings were read again.
pub fn ready() {
    tell(vec![NotifyState::Ready]);
}

/// The settings are being read again; [`ready`] says when that is done. The time distinguishes this reload
/// from an earlier one.
pub fn reloading() {
    let at = NotifyState::monotonic_usec_now().ok();
    tell([NotifyState::Reloading].into_iter().chain(at).collect());
}

/// The agent is about to end.
pub fn stopping() {
    tell(vec![NotifyState::Stopping]);
}

/// Notifies systemd forever, twice within `WatchdogSec`, that the loop that beats still runs.
pub async fn keep_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return std::future::pending().await;
    };
    let mut ticks = interval(limit / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !LIVES.swap(true, SeqCst) {
            tell(vec![NotifyState::Watchdog]);
        }
    }
}

/// Queues a message. A service manager that does not listen is no reason to stop or to wait.
fn tell(states: States) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    static QUEUE: OnceLock<Sender<States>> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        let (queue, told) = channel::<States>();
        let telling = move || {
            while let Ok(states) = told.recv() {
                if matches!(states[..], [NotifyState::Watchdog]) {
                    LIVES.store(false, SeqCst);
                }
                let _ = sd_notify::notify(&states);
            }
        };
        let _ = thread::Builder::new().name("systemd".to_owned()).spawn(telling);
        queue
    });
    let _ = queue.send(states);
}

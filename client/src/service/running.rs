//! A service that beats, until it is stopped.

use std::{sync::Arc, time::Duration};

use beatkeeper_api::heartbeat::Health;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    background::BackgroundThread,
    hooks::{Hook, run_all},
    reporter::{Counters, Stats},
    runner::Runner,
};
use crate::{error::StopError, heartbeat_loop::Progress, lease::HealthReport};

/// How long a stop waits for handlers to receive the last events.
const EVENTS_DELIVERED_WITHIN: Duration = Duration::from_secs(1);
/// How long the drain may take to be accepted before the delay begins: during the delay routers must be able
/// to see the drain.
const DRAIN_ACCEPTED_WITHIN: Duration = Duration::from_secs(5);

/// A service that beats. If this value is dropped, the beats end, and the instance is pruned when its ttl has
/// passed: use [`stop`](Self::stop) instead.
pub struct Running {
    pub(super) runner: Runner,
    pub(super) health: Arc<watch::Sender<HealthReport>>,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) stats: Arc<Counters>,
    pub(super) background: Arc<BackgroundThread>,
    pub(super) checking: Option<AbortOnDropHandle<()>>,
    pub(super) drain_delay: Duration,
    pub(super) before_stop: Vec<Hook>,
    pub(super) after_stop: Vec<Hook>,
}

impl Running {
    /// Sets the health of the instance, with a beat at once. A registered check continues, and may report
    /// another health afterwards; it ends when the instance drains.
    pub fn set_health(&self, health: Health, note: Option<String>) {
        self.health.send_replace(HealthReport { health, note, provisional: false });
    }

    /// Drains: the instance is published as terminating, and gets no new connections. Waits until the drain
    /// is accepted, for at most five seconds, and then for `delay`, in which routers notice.
    pub async fn drain(&mut self, delay: Duration) {
        self.checking = None;
        self.health.send_modify(|health_report| {
            health_report.health = Health::Draining;
            health_report.provisional = false;
        });
        let is_told = |now: &Progress| {
            now.reported
                .as_ref()
                .is_some_and(|health_report| health_report.health == Health::Draining)
        };
        let reported = self.progress.wait_for(is_told);
        if timeout(DRAIN_ACCEPTED_WITHIN, reported).await.is_err() {
            tracing::warn!("no beat was accepted that says that the instance drains");
        }
        sleep(delay).await;
    }

    /// Returns the counts since the start.
    pub fn stats(&self) -> Stats {
        self.stats.read()
    }

    /// Stops: runs the hooks, drains if there is a drain delay, deregisters, and runs the remaining hooks. A
    /// failure of one step does not prevent the next ones.
    ///
    /// # Errors
    /// All steps that failed.
    pub async fn stop(mut self) -> Result<(), StopError> {
        let mut error = StopError::default();
        let before = std::mem::take(&mut self.before_stop);
        run_all(&mut error, "before_stop", before).await;
        if !self.drain_delay.is_zero() {
            self.drain(self.drain_delay).await;
        }
        self.checking = None;
        error.deregister = self.runner.stop().await.err().map(Box::new);
        self.background.done(EVENTS_DELIVERED_WITHIN).await;
        run_all(&mut error, "after_stop", self.after_stop).await;
        error.nothing_or()
    }
}

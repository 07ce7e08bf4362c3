//! The tasks of one scope.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::controller::host::Process;

/// Spawns tasks. The scope waits for all of them when it stops.
#[derive(Clone)]
pub(crate) struct Tasks {
    /// The process that every task belongs to.
    pub(crate) process: Process,
    /// Cancelled when the scope is to stop.
    pub(crate) stop: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    pub(crate) fn new(process: Process, stop: CancellationToken) -> Self {
        Self { process, stop, tracker: TaskTracker::new() }
    }

    /// Spawns a task that runs until the scope stops. If the task ends by itself, which is a defect, the scope
    /// stops: it must not decide from data that no task keeps up to date.
    pub(crate) fn spawn_for_ever(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawn(async move {
            // Dropped on a panic, too.
            let _ended = stop.clone().drop_guard();
            stop.run_until_cancelled(task).await;
        });
    }

    /// Spawns a task beside the work queue. The task runs to its end.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(self.process.task(task));
    }

    /// Waits until all tasks have ended.
    pub(crate) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

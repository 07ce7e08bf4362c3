//! How the supervisor and its workers talk to each other.

use std::sync::Arc;

use anyhow::Result;
use beatkeeper_client::publication::Publication;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::agent::metrics::counts::InstanceMetrics;

/// The task of a worker.
pub type WorkerTask = AbortOnDropHandle<Result<()>>;

/// What happens to an instance if its probes fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The instance reports that it fails: a process beside the agent is alive even if its probes fail.
    ReportFailing {
        /// Whether the agent has started the process, so that an earlier report does not apply to it.
        started_here: bool,
    },
    /// The instance stops beating until the probes succeed again: only the probes know whether a remote
    /// target is alive.
    StopBeating,
}

impl OnFailure {
    /// The same for an instance that continues after a panic: its earlier report still applies.
    pub fn again(self) -> Self {
        match self {
            Self::ReportFailing { .. } => Self::ReportFailing { started_here: false },
            Self::StopBeating => Self::StopBeating,
        }
    }
}

/// The progress of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerState {
    /// No beat was accepted yet.
    Starting,
    /// A beat was accepted since the start, or the probes have found the instance dead.
    Settled,
    /// The beat that reports the drain was accepted.
    Drained,
}

/// The requests to drain, leave or stop.
#[derive(Debug, Clone, Default)]
pub struct Controls {
    /// The instance drains from now on, and keeps beating.
    pub drain: CancellationToken,
    /// The instance ends, and leaves its Lease unchanged for the next process.
    pub leave: CancellationToken,
    /// The instance stops and deregisters.
    pub stop: CancellationToken,
}

/// The task that beats for a remote target with its former settings.
pub struct Predecessor {
    /// The requests that end the task.
    pub controls: Controls,
    /// The task itself.
    pub task: WorkerTask,
}

impl Predecessor {
    /// Ends the task, and leaves the Lease.
    pub async fn leave(self) {
        self.controls.leave.cancel();
        let _ = self.task.await;
    }

    /// Ends the task, and deregisters.
    ///
    /// # Errors
    /// Deregistering failed.
    pub async fn stop(self) -> Result<()> {
        self.controls.stop.cancel();
        self.task.await?
    }
}

/// Where an instance writes its progress.
#[derive(Clone)]
pub struct StatusSender {
    /// Read by the code that started the agent.
    pub state: watch::Sender<WorkerState>,
    /// How the operator treats the instance; `None` while that is unknown.
    pub standing: watch::Sender<Option<Publication>>,
    /// Its share of the metrics.
    pub metrics: Arc<InstanceMetrics>,
}

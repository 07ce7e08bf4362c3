//! One process of a control plane, as a test controls it.

use anyhow::Result;

use crate::part::Part;
use crate::plane::ControlPlane;
use crate::ready;
use crate::supervisor::Order;

/// Stops, kills, suspends and starts one process. Each operation may be repeated. The process keeps its port and
/// its data.
pub struct Component<'a> {
    plane: &'a ControlPlane,
    part: Part,
}

impl<'a> Component<'a> {
    pub(crate) fn new(plane: &'a ControlPlane, part: Part) -> Self {
        Self { plane, part }
    }

    /// Starts the process, and returns once it answers that it is ready.
    ///
    /// # Errors
    /// If the process ends instead, or takes longer than two minutes. The error contains the end of its log.
    pub async fn start(&self) -> Result<()> {
        self.plane.order(self.part, Order::Start).await?;
        ready::healthy(self.plane, self.part, &[self.part]).await
    }

    /// Asks the process to end, and returns once it has ended. After ten seconds the process is killed.
    pub async fn stop(&self) -> Result<()> {
        self.plane.order(self.part, Order::Stop).await.map(drop)
    }

    /// Kills the process without a warning, and returns once it has ended.
    pub async fn kill(&self) -> Result<()> {
        self.plane.order(self.part, Order::Kill).await.map(drop)
    }

    /// Suspends the process: its connections stay open, and it answers nothing.
    pub async fn suspend(&self) -> Result<()> {
        self.plane.order(self.part, Order::Suspend).await.map(drop)
    }

    /// Resumes the process.
    pub async fn resume(&self) -> Result<()> {
        self.plane.order(self.part, Order::Resume).await.map(drop)
    }

    /// Returns the process id, or `None` while the process does not run.
    pub async fn pid(&self) -> Result<Option<u32>> {
        Ok(self.plane.order(self.part, Order::Status).await?.pid)
    }
}

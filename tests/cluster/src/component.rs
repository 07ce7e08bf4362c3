//! One process of a control plane in the hands of a test.

use anyhow::Result;

use crate::part::Part;
use crate::plane::ControlPlane;
use crate::ready;
use crate::supervisor::Order;

/// Stops, kills, suspends and starts one process. Everything may be done twice; it keeps its port and its data.
pub struct Component<'a> {
    plane: &'a ControlPlane,
    part: Part,
}

impl<'a> Component<'a> {
    pub(crate) fn new(plane: &'a ControlPlane, part: Part) -> Self {
        Self { plane, part }
    }

    /// Starts it, and returns once it answers that it is ready.
    ///
    /// # Errors
    /// When it ends instead, or takes longer than two minutes; with the end of its log.
    pub async fn start(&self) -> Result<()> {
        self.plane.order(self.part, Order::Start).await?;
        ready::healthy(self.plane, self.part, &[self.part]).await
    }

    /// Asks it to end, and returns once it has. It is killed after ten seconds.
    pub async fn stop(&self) -> Result<()> {
        self.plane.order(self.part, Order::Stop).await.map(drop)
    }

    /// Ends it without a warning, and returns once it is gone.
    pub async fn kill(&self) -> Result<()> {
        self.plane.order(self.part, Order::Kill).await.map(drop)
    }

    /// Freezes it: its connections stay open and nothing answers.
    pub async fn suspend(&self) -> Result<()> {
        self.plane.order(self.part, Order::Suspend).await.map(drop)
    }

    /// Thaws it.
    pub async fn resume(&self) -> Result<()> {
        self.plane.order(self.part, Order::Resume).await.map(drop)
    }

    /// Its process id; none while it does not run.
    pub async fn pid(&self) -> Result<Option<u32>> {
        Ok(self.plane.order(self.part, Order::Status).await?.pid)
    }
}

//! Control planes that end with the thread that started them.

use std::cell::RefCell;

use anyhow::Result;

use crate::options::Options;
use crate::plane::ControlPlane;

thread_local! {
    static STARTED: RefCell<Vec<Started>> = const { RefCell::new(Vec::new()) };
}

/// Ends the processes when the thread ends. The value itself stays, because there may be references to it.
struct Started(&'static ControlPlane);

impl Drop for Started {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl ControlPlane {
    /// Starts a control plane whose processes end with the calling thread. The test harness runs each test in a thread
    /// of its own, so they end with the test: control planes of ended tests would take time from the others.
    ///
    /// # Errors
    /// Those of [`ControlPlane::start`].
    pub async fn start_for_this_thread(options: Options) -> Result<&'static Self> {
        let plane: &'static Self = Box::leak(Box::new(Self::start(options).await?));
        STARTED.with_borrow_mut(|started| started.push(Started(plane)));
        Ok(plane)
    }
}

//! The only place below the command line that asks what time it is.

use std::time::Instant;

use crate::core::{moment::Moment, status::Clocks};

/// The clocks of this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The present on the monotonic clock.
    pub(super) fn now(&self) -> Moment {
        Moment::from_start(self.start.elapsed())
    }

    /// The present on both clocks.
    pub(super) fn clocks(&self) -> Clocks {
        Clocks { now: self.now(), wall: jiff::Timestamp::now() }
    }
}

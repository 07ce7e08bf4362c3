//! The signals that end a command that would go on for ever.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::Error;

/// The signals that end a command.
pub struct End {
    interrupt: Signal,
    terminate: Signal,
}

impl End {
    /// Takes the signals from now on.
    ///
    /// # Errors
    /// [`Error::Start`], if the system refuses this.
    pub fn new() -> Result<Self, Error> {
        let on = |kind| signal(kind).map_err(Error::Start);
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
        })
    }

    /// Waits until the user ends the command.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

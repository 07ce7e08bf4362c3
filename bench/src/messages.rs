//! The messages between the driver, the loader and the watcher: one JSON object per line, through pipes.

use std::io::Write;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;

/// The number of an instance. It is also the instance's name in each system.
pub type Instance = u32;

/// What an instance does. The ledger measures its lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// The instance falls silent, as soon as its last request is answered. It should be removed one ttl after its last
    /// renewal was sent, and not earlier.
    Death,
    /// The instance deregisters. It should be removed at once.
    Leave,
    /// The instance registers, or comes back. It should be published at once.
    Return,
}

/// An order of the driver to the loader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// These instances do this: those that return, each at a random moment of a span, and all others at once.
    Act { act: Act, instances: Vec<Instance>, over: Duration },
    /// Other instances renew as fast as they are answered, for a span; then the loader reports how often.
    Hammer { instances: Range<Instance>, span: Duration },
    /// The loader reports how often instances have renewed since the start.
    Count,
}

/// An event that the loader or the watcher reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The process is ready for orders, or watches from now on.
    Ready,
    /// An instance has stopped beating, and its last renewal was sent and answered at these moments. Or it is about
    /// to send the request of another act; both moments are the same then.
    Acted { act: Act, instance: Instance, sent: Moment, answered: Moment },
    /// The watcher sees that an instance is registered, or no longer.
    Seen { instance: Instance, there: bool, at: Moment },
    /// How many renewals were answered, and how many failed.
    Counted { renewals: u64, failures: u64 },
}

/// Sends events to the driver; cheap to clone.
#[derive(Clone)]
pub struct Events(std::sync::mpsc::Sender<Event>);

impl Events {
    /// Sends events to stdout, from a thread of its own, so that a full pipe never delays the sender.
    pub fn to_stdout() -> Self {
        let (sender, events) = std::sync::mpsc::channel::<Event>();
        std::thread::spawn(move || {
            let mut out = std::io::stdout().lock();
            for event in events {
                let line = serde_json::to_string(&event).expect("an event is plain data");
                // If the driver has ended, no process reads the events.
                if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                    return;
                }
            }
        });
        Self(sender)
    }

    /// Sends one event.
    pub fn send(&self, event: Event) {
        let _ = self.0.send(event);
    }
}

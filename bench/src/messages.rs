//! The messages between the driver, the loader and the watcher: one JSON object per line, through pipes.

use std::io::Write;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;

/// The number of an instance. It is also the instance's name in each system.
pub type Instance = u32;

/// An order of the driver to the loader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// These instances register at random moments over a span, and beat from then on.
    Join { instances: Vec<Instance>, over: Duration },
    /// These instances fall silent, each as soon as its last request is answered.
    Die(Vec<Instance>),
    /// These instances deregister.
    Leave(Vec<Instance>),
    /// Other instances renew as fast as they are answered, for a span.
    Hammer { instances: Range<Instance>, span: Duration },
    /// Report the counts so far.
    Count,
}

/// An event that the loader or the watcher reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The process is ready for orders, or watches from now on.
    Ready,
    /// An instance is about to register, at this moment.
    Joining { instance: Instance, at: Moment },
    /// An instance has stopped beating. Its last renewal was sent and answered at these moments.
    Died { instance: Instance, last_renewal: Moment, answered: Moment },
    /// An instance is about to deregister.
    Leaving { instance: Instance, at: Moment },
    /// The watcher sees a new instance.
    There { instance: Instance, at: Moment },
    /// The watcher no longer sees an instance.
    Gone { instance: Instance, at: Moment },
    /// How many renewals were answered, and how many failed or got no answer, since the start.
    Counted { renewals: u64, failures: u64 },
    /// How many renewals were answered or failed in how many seconds, each sent as soon as the last was answered.
    Hammered { renewals: u64, failures: u64, seconds: f64 },
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

    /// Reports that an instance is registered, or no longer.
    pub fn seen(&self, instance: Instance, registered: bool, at: Moment) {
        self.send(if registered {
            Event::There { instance, at }
        } else {
            Event::Gone { instance, at }
        });
    }
}

//! What the driver, the loader and the watcher tell each other: one JSON object a line, through pipes.

use std::io::Write;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;

/// The number of an instance, and its name in whatever it registers with.
pub type Instance = u32;

/// What the driver asks the loader for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// These register, at random moments over a span, and beat from then on.
    Join { instances: Vec<Instance>, over: Duration },
    /// These fall silent, each as soon as what it has sent is answered.
    Die(Vec<Instance>),
    /// These say that they leave.
    Leave(Vec<Instance>),
    /// Others renew as fast as they are answered, for a span.
    Hammer { instances: Range<Instance>, span: Duration },
    /// Say how much has been done so far.
    Count,
}

/// What the loader and the watcher tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Ready for orders, or watching from here on.
    Ready,
    /// An instance is about to register, at this moment.
    Joining { instance: Instance, at: Moment },
    /// An instance beats no more; its last renewal was sent and answered at these moments.
    Died { instance: Instance, last_renewal: Moment, answered: Moment },
    /// An instance is about to say that it leaves.
    Leaving { instance: Instance, at: Moment },
    /// The watcher sees an instance that it did not see before.
    There { instance: Instance, at: Moment },
    /// The watcher sees one no more.
    Gone { instance: Instance, at: Moment },
    /// So many renewals were answered, and so many were not or with an error, since the start.
    Counted { renewals: u64, failures: u64 },
    /// So many renewals in so many seconds, as fast as they were answered.
    Hammered { renewals: u64, failures: u64, seconds: f64 },
}

/// Tells events to the driver; cheap to clone.
#[derive(Clone)]
pub struct Tell(std::sync::mpsc::Sender<Event>);

impl Tell {
    /// To stdout, from a thread of its own: a full pipe never holds up who tells.
    pub fn to_stdout() -> Self {
        let (tell, told) = std::sync::mpsc::channel::<Event>();
        std::thread::spawn(move || {
            let mut out = std::io::stdout().lock();
            for event in told {
                let line = serde_json::to_string(&event).expect("an event is plain data");
                // Without a driver there is nobody to tell.
                if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                    return;
                }
            }
        });
        Self(tell)
    }

    /// Tells one.
    pub fn tell(&self, event: Event) {
        let _ = self.0.send(event);
    }
}

//! How often to beat, and what a loop reports.

use std::{sync::Arc, time::Duration};

use crate::{
    event::Event, failure::Failure, gateway::GatewayNames, lease::HealthReport,
    publication::Publication, schedule::Pace,
};

/// A function that receives the events. The loop calls it directly, so it must not block.
pub type Report = Arc<dyn Fn(&Event) + Send + Sync>;

/// How often to beat, where this differs from the registration, and what the program around the loop calls its settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BeatOptions {
    /// An interval that is shorter than the registration's. A longer one is reported and not followed. Zero:
    /// one beat at the start and none after it, so another process has to beat.
    pub interval: Option<Duration>,
    /// The ttl that the caller relies on. A registration with a shorter ttl is reported. This has no other
    /// effect.
    pub ttl: Option<Duration>,
    /// Other processes are meant to beat under the same name with the same claim, so this is not reported as
    /// a name conflict.
    pub shared: bool,
    /// What messages call the settings of gateways.
    pub gateway_names: GatewayNames,
}

impl BeatOptions {
    pub(super) fn renews(self) -> bool {
        self.interval != Some(Duration::ZERO)
    }

    /// The interval that the caller asks for.
    pub(super) fn wanted(self) -> Option<Duration> {
        self.interval.filter(|wanted| !wanted.is_zero())
    }

    /// The warnings to report about a pace.
    pub(super) fn warnings(self, pace: Pace) -> Vec<Event> {
        let slow = self.interval.filter(|wanted| *wanted > pace.interval());
        let patient = self.ttl.filter(|wanted| *wanted > pace.ttl());
        let slow = slow.map(|wanted| Event::IntervalTooLong { wanted, pace });
        let patient = patient.map(|wanted| Event::TtlTooLong { wanted, pace });
        slow.into_iter().chain(patient).collect()
    }
}

/// The progress of a loop, for code that waits for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The health report that was accepted last; `None` before the first beat.
    pub reported: Option<HealthReport>,
    /// Why the last try failed; `None` once a try has succeeded since.
    pub failure: Option<Failure>,
    /// How the operator treats the instance, according to the status of the registration.
    pub publication: Option<Publication>,
}

//! How long ago something was last seen. The ages are computed at each scrape, so that no timer is needed.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};

use crate::{controller::clock::Clock, metrics::catalogue::Catalogue};
use beatkeeper_core::vocabulary::monotonic_time::MonotonicTime;

const WATCH: &str = "watch_last_event_age";
const WATCH_HELP: &str = "Time since the last event of the watch of a kind; of the quietest watch if several \
     namespaces are watched. It is long for a kind that rarely changes";
const PROOF: &str = "path_proof_age";
const PROOF_HELP: &str = "Time since the last proof that beats can arrive, or since the process started if it has had none";

/// When something was last seen; never at first. It is cheap enough to be updated on every beat.
#[derive(Debug)]
pub(in crate::controller) struct LastSeen(AtomicU64);

const NEVER: u64 = u64::MAX;

impl Default for LastSeen {
    fn default() -> Self {
        Self(AtomicU64::new(NEVER))
    }
}

impl LastSeen {
    pub(in crate::controller) fn note(&self, now: MonotonicTime) {
        let millis = now.since(MonotonicTime::default()).as_millis();
        self.0.store(u64::try_from(millis).unwrap_or(NEVER), Ordering::Relaxed);
    }

    fn age(&self, now: MonotonicTime) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            NEVER => None,
            millis => Some(now.since(MonotonicTime::from_millis(millis))),
        }
    }
}

/// Everything that has an age.
#[derive(Debug, Default)]
pub(super) struct Ages {
    pub(super) proof: LastSeen,
    watches: Mutex<BTreeMap<&'static str, Vec<Arc<LastSeen>>>>,
}

impl Ages {
    /// Registers a new watch of this kind.
    pub(super) fn watch(&self, kind: &'static str) -> Arc<LastSeen> {
        let seen = Arc::new(LastSeen::default());
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.entry(kind).or_default().push(seen.clone());
        seen
    }

    /// Adds the ages to a registry.
    pub(super) fn register(self: &Arc<Self>, catalogue: &mut Catalogue, clock: Clock) {
        let seconds = Some(&Unit::Seconds);
        catalogue.describe(WATCH, seconds, MetricType::Gauge, &["kind"], WATCH_HELP);
        catalogue.describe(PROOF, seconds, MetricType::Gauge, &[], PROOF_HELP);
        let collector = AgesNow { ages: self.clone(), clock };
        catalogue.registry.register_collector(Box::new(collector));
    }
}

struct AgesNow {
    ages: Arc<Ages>,
    clock: Clock,
}

impl fmt::Debug for AgesNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgesNow")
    }
}

impl Collector for AgesNow {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = self.clock.now();
        let gauge = |age: Duration| ConstGauge::new(age.as_secs_f64());
        let unit = Some(&Unit::Seconds);
        // The registry adds a full stop to help texts, but not to those of a collector.
        let help = format!("{WATCH_HELP}.");
        let mut family = encoder.encode_descriptor(WATCH, &help, unit, MetricType::Gauge)?;
        let watches = self.ages.watches.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, watches) in &*watches {
            // A watch without an event has no age yet. Then the kind has none: the age of another watch must
            // not hide this.
            let ages: Option<Vec<Duration>> = watches.iter().map(|seen| seen.age(now)).collect();
            if let Some(age) = ages.into_iter().flatten().max() {
                gauge(age).encode(family.encode_family(&[("kind", *kind)])?)?;
            }
        }
        let help = format!("{PROOF_HELP}.");
        let metric = encoder.encode_descriptor(PROOF, &help, unit, MetricType::Gauge)?;
        // A replica that never gets a proof must not be without a series: no alert could find it.
        gauge(self.ages.proof.age(now).unwrap_or(now.since(MonotonicTime::default())))
            .encode(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::metrics::process::Metrics;

    #[test]
    fn a_replica_without_a_proof_shows_the_time_since_its_start() {
        let clock = Clock::start();
        let metrics = Metrics::new(clock, false);
        let age = || -> Option<f64> {
            let text = metrics.text();
            let name = "beatkeeper_path_proof_age_seconds ";
            text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok())
        };
        let at_first = age().expect("a series");
        while clock.now().since(MonotonicTime::default()) < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        let grown = age().expect("a series");
        assert!(grown >= 0.05 && grown > at_first, "{at_first} and {grown}");
        metrics.path_proven(clock.now());
        assert!(age().expect("a series") < grown);
    }
}

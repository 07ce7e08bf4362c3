//! Which instances are registered. It is computed at each scrape.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use beatkeeper_client::lease::Identity;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};
use tokio::time::Instant;

use crate::metrics::catalogue::Catalogue;

/// At most this many instances have series of their own.
const SERIES_MAX: usize = 1000;

const ALL: &str = "instances";
const ALL_HELP: &str = "Instances of this agent, by whether they are registered, as beatkeeper_agent_instance_registered defines it";
const EACH: &str = "instance_registered";
const EACH_HELP: &str = "1 while the last accepted beat of an instance is younger than its ttl, 0 otherwise: before the first beat, \
     after an outage of a ttl, and for a target of proxy with failing probes; for at most 1000 instances of an agent";
const LEFT_OUT: &str = "instances_without_series";
const LEFT_OUT_HELP: &str =
    "Instances without a series of their own, because the agent has more than 1000";

/// Not `namespace` and `instance`: Prometheus gives each target labels of these names, and would rename those of a
/// metric.
const LABELS: [&str; 3] = ["registration_namespace", "registration", "instance_name"];

/// Namespace, registration and name of an instance.
type Key = [String; 3];

/// The last accepted beat of one instance.
#[derive(Debug, Default)]
pub(super) struct Registered(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    beat: Option<Instant>,
    ttl: Duration,
}

impl Registered {
    fn last(&self) -> MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A beat was accepted.
    pub(super) fn beat(&self, now: Instant, ttl: Option<Duration>) {
        let mut last = self.last();
        last.beat = Some(now);
        last.ttl = ttl.unwrap_or(last.ttl);
    }

    /// The registration has another ttl.
    pub(super) fn set_ttl(&self, ttl: Duration) {
        self.last().ttl = ttl;
    }

    /// The Lease is not this agent's any more.
    pub(super) fn end(&self) {
        self.last().beat = None;
    }

    fn now(&self, now: Instant) -> bool {
        let last = self.last();
        last.beat.is_some_and(|at| now.saturating_duration_since(at) < last.ttl)
    }
}

/// The instances of an agent, each while its task keeps its record.
#[derive(Debug, Clone, Default)]
pub(super) struct Instances(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// In the order in which they were added: so an instance does not lose its series to a later one.
    records: BTreeMap<u64, (Key, Weak<Registered>)>,
    places: BTreeMap<Key, u64>,
    next: u64,
}

impl Known {
    /// Removes the instances that have ended.
    fn forget(&mut self) {
        let Self { records, places, .. } = self;
        records.retain(|place, (key, record)| {
            let stays = record.strong_count() > 0;
            if !stays && places.get(key) == Some(place) {
                places.remove(key);
            }
            stays
        });
    }

    fn get(&self, key: &Key) -> Option<Arc<Registered>> {
        self.records.get(self.places.get(key)?)?.1.upgrade()
    }
}

impl Instances {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an instance, or returns the record that it has already.
    pub(super) fn add(&self, identity: &Identity) -> Arc<Registered> {
        let Identity { namespace, registration, instance, .. } = identity;
        let key = [namespace.clone(), registration.clone(), instance.clone()];
        let mut known = self.known();
        if let Some(record) = known.get(&key) {
            return record;
        }
        let (record, place) = (Arc::new(Registered::default()), known.next);
        known.next += 1;
        known.records.insert(place, (key.clone(), Arc::downgrade(&record)));
        known.places.insert(key, place);
        record
    }

    /// Adds the metrics to a registry.
    pub(super) fn register(&self, all: &mut Catalogue) {
        all.describe(ALL, None, MetricType::Gauge, &["registered"], ALL_HELP);
        all.describe(EACH, None, MetricType::Gauge, &LABELS, EACH_HELP);
        all.describe(LEFT_OUT, None, MetricType::Gauge, &[], LEFT_OUT_HELP);
        all.registry.register_collector(Box::new(self.clone()));
    }
}

impl Collector for Instances {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut known = self.known();
        known.forget();
        let now = Instant::now();
        let records = known.records.values();
        let all: Vec<(&Key, bool)> =
            records.filter_map(|(key, record)| Some((key, record.upgrade()?.now(now)))).collect();
        // The registry adds a full stop to help texts, but not to those of a collector.
        let help = format!("{ALL_HELP}.");
        let mut sums = encoder.encode_descriptor(ALL, &help, None, MetricType::Gauge)?;
        for (label, which) in [("true", true), ("false", false)] {
            let count = all.iter().filter(|(_, registered)| *registered == which).count();
            gauge(count).encode(sums.encode_family(&[("registered", label)])?)?;
        }
        let help = format!("{EACH_HELP}.");
        let mut each = encoder.encode_descriptor(EACH, &help, None, MetricType::Gauge)?;
        for (key, registered) in all.iter().take(SERIES_MAX) {
            let labels: [(&str, &str); 3] = std::array::from_fn(|n| (LABELS[n], &*key[n]));
            gauge(usize::from(*registered)).encode(each.encode_family(&labels)?)?;
        }
        let help = format!("{LEFT_OUT_HELP}.");
        let left_out = encoder.encode_descriptor(LEFT_OUT, &help, None, MetricType::Gauge)?;
        gauge(all.len().saturating_sub(SERIES_MAX)).encode(left_out)
    }
}

fn gauge(count: usize) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap as Map;

    use beatkeeper_client::lease::Location;
    use tokio::time::advance;

    use super::*;
    use crate::metrics::exposition;

    fn identity(instance: &str) -> Identity {
        Identity {
            namespace: "shop".to_owned(),
            registration: "greeter".to_owned(),
            instance: instance.to_owned(),
            home: Location::Outside(vec![]),
            version: None,
            metadata: Map::new(),
        }
    }

    /// The values of all series whose names begin with this text.
    fn series(catalogue: &Catalogue, name: &str) -> Vec<(String, String)> {
        let text = exposition::text(&[&catalogue.registry]);
        text.lines()
            .filter(|line| {
                line.starts_with(&format!("a_{name}{{")) || line.starts_with(&format!("a_{name} "))
            })
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(series, value)| (series.to_owned(), value.to_owned()))
            .collect()
    }

    fn values(catalogue: &Catalogue, name: &str) -> Vec<String> {
        series(catalogue, name).into_iter().map(|(_, value)| value).collect()
    }

    fn registered() -> (Instances, Catalogue) {
        let (instances, mut catalogue) = (Instances::default(), Catalogue::new("a"));
        instances.register(&mut catalogue);
        (instances, catalogue)
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_is_registered_from_its_first_beat_until_a_ttl_after_its_last() {
        let (instances, catalogue) = registered();
        let record = instances.add(&identity("vm-1"));
        let name = r#"a_instance_registered{registration_namespace="shop",registration="greeter",instance_name="vm-1"}"#;
        assert_eq!(series(&catalogue, EACH), [(name.to_owned(), "0".to_owned())]);
        record.beat(Instant::now(), Some(Duration::from_secs(5)));
        assert_eq!(values(&catalogue, EACH), ["1"]);
        advance(Duration::from_secs(4)).await;
        record.beat(Instant::now(), None);
        advance(Duration::from_millis(4_900)).await;
        assert_eq!(values(&catalogue, EACH), ["1"]);
        assert_eq!(values(&catalogue, ALL), ["1", "0"]);
        advance(Duration::from_millis(100)).await;
        assert_eq!(values(&catalogue, EACH), ["0"]);
        assert_eq!(values(&catalogue, ALL), ["0", "1"]);
        record.set_ttl(Duration::from_secs(10));
        assert_eq!(values(&catalogue, EACH), ["1"]);
        record.end();
        assert_eq!(values(&catalogue, EACH), ["0"]);
    }

    #[tokio::test]
    async fn an_instance_that_is_replaced_keeps_its_record_and_one_that_ends_loses_its_series() {
        let (instances, catalogue) = registered();
        let (first, second) = (instances.add(&identity("vm-1")), instances.add(&identity("vm-1")));
        second.beat(Instant::now(), Some(Duration::from_secs(60)));
        drop(second);
        assert_eq!(values(&catalogue, EACH), ["1"], "both are one");
        drop(first);
        assert_eq!(values(&catalogue, EACH), [""; 0]);
        let again = instances.add(&identity("vm-1"));
        assert_eq!(values(&catalogue, EACH), ["0"]);
        drop(again);
    }

    #[tokio::test]
    async fn a_thousand_instances_have_series_and_the_others_are_counted() {
        let (instances, catalogue) = registered();
        let mut records: Vec<_> = (0..SERIES_MAX + 2)
            .map(|n| instances.add(&identity(&format!("vm-{}", SERIES_MAX + 2 - n))))
            .collect();
        records[SERIES_MAX].beat(Instant::now(), Some(Duration::from_secs(60)));
        assert_eq!(values(&catalogue, EACH), vec!["0"; SERIES_MAX]);
        assert_eq!(values(&catalogue, LEFT_OUT), ["2"]);
        assert_eq!(values(&catalogue, ALL), ["1".to_owned(), (SERIES_MAX + 1).to_string()]);
        records.remove(0);
        let has_beaten = values(&catalogue, EACH).iter().filter(|value| *value == "1").count();
        assert_eq!((has_beaten, values(&catalogue, LEFT_OUT)), (1, vec!["1".to_owned()]));
    }
}

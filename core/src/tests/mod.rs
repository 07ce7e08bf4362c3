//! Tests of the part of the core that decides, and the helpers that these tests share.

use std::{cell::OnceCell, collections::HashMap, net::IpAddr, sync::Arc};

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::{
    adoption::adopted::Adopted,
    decide::{
        cordons::Cordon,
        decide,
        evidence::Evidence,
        facts::{Cluster, Facts, Instances, Liveness, PublishedNow, TargetService},
        verdict::Verdict,
    },
    inputs::earlier::Earlier,
    liveness::{
        index::{
            Basis, CommitResult, Index, LeaseDecision, LiveRead, NextBeat, Observed, Outcome,
            Record,
        },
        rhythm::Wanted,
        ttl::TtlHistory,
    },
    objects::{
        heartbeat::{Heartbeat, HeartbeatLease, Origin},
        pod::PodView,
        registration::Registration,
    },
    vocabulary::{
        address::{AddressSet, OutsideRanges},
        endpoint::Family,
        failure::Failure,
        key::Key,
        monotonic_time::MonotonicTime,
        pace::Pace,
        version::{Token, Version},
    },
};

mod abandoned;
mod adoption;
mod adoption_plan;
mod change_limits;
mod cordon;
mod decide_gateways;
mod decide_health;
mod decide_life;
mod depends;
mod dry_run;
mod edits;
mod endpoint_conflicts;
mod explain;
mod frozen;
mod garbage;
mod garbage_published;
mod gates;
mod heartbeat;
mod index_beats;
mod index_commit;
mod index_leases;
mod kept;
mod min_ready;
mod outage_guard;
mod outage_guard_weight;
mod placement;
mod published_verdicts;
mod refused_addresses;
mod registration;
mod rollback;
mod status_floor;
mod ttl;
mod unreadable;

/// A failure of the shell with this message.
fn failure(message: &str) -> Failure {
    Failure::of(std::io::Error::other(message))
}

/// The messages of errors.
fn messages<E: ToString>(errors: &[E]) -> Vec<String> {
    errors.iter().map(E::to_string).collect()
}

/// Milliseconds after the start of the clock.
fn at(millis: u64) -> MonotonicTime {
    MonotonicTime::from_millis(millis)
}

fn key(name: &str) -> Key {
    Key::new("shop", name)
}

/// What the index is told of a published instance whose beats arrive at this pace.
fn published_at(pace: Pace, record: &Record) -> LeaseDecision {
    LeaseDecision {
        lease: record.lease.clone(),
        token: record.token.clone(),
        carried_at: record.carried_at(),
        outcome: Outcome::Published(Basis::Beats),
        next_beat: NextBeat::IsNoOp,
        placed: true,
        wanted: Wanted::at(pace, None),
    }
}

/// A heartbeat of registration greeter, from an outside instance.
fn beat(instance: &str, renewed: i64, version: u64) -> Heartbeat {
    let mut beat = Heartbeat::read(&lease(json!({
        "metadata": { "name": format!("greeter.{instance}") },
        "spec": { "holderIdentity": instance },
    })));
    beat.registration = Some("greeter".to_owned());
    beat.token = Token { uid: "uid-1".into(), renewed: Some(renewed) };
    beat.version = Version(version);
    beat.content.addresses = vec!["192.0.2.1".into()];
    beat
}

/// A heartbeat of registration greeter, from an instance in the Pod of this name.
fn pod_beat(pod: &str, renewed: i64, version: u64) -> Heartbeat {
    let mut beat = beat(pod, renewed, version);
    beat.content.origin = Origin::Pod { name: pod.to_owned(), uid: format!("{pod}-uid") };
    beat.content.addresses.clear();
    beat
}

fn lease(json: Value) -> HeartbeatLease {
    serde_json::from_value(json).expect("a Lease")
}

fn pod(json: Value) -> PodView {
    PodView::of(&serde_json::from_value::<Pod>(json).expect("a Pod"))
}

/// A Pod that is ready and matches the selector of [`World`].
fn ready_pod(name: &str, ips: &[&str]) -> Value {
    json!({
        "metadata": { "name": name, "uid": format!("{name}-uid"), "labels": { "app": "greeter" } },
        "spec": { "nodeName": "node-1", "containers": [{ "name": "main", "ports": [
            { "name": "web", "containerPort": 8080 },
            { "name": "web", "containerPort": 5353, "protocol": "UDP" },
        ] }] },
        "status": {
            "phase": "Running",
            "podIPs": ips.iter().map(|ip| json!({ "ip": ip })).collect::<Vec<_>>(),
            "conditions": [{ "type": "ContainersReady", "status": "True" }],
        },
    })
}

/// An index that has read an empty first list.
fn index() -> Index {
    let mut index = Index::default();
    index.begin_list();
    index.end_list();
    index
}

/// An index that has read these Leases in its first list, at moment 0.
fn inherited(beats: &[Heartbeat]) -> Index {
    let mut index = Index::default();
    index.begin_list();
    for beat in beats {
        index.observe("shop", beat.clone(), at(0));
    }
    index.end_list();
    index
}

fn nothing() -> Observed {
    Observed::default()
}

/// The result of a beat that came this long after the beat before.
fn woken_after(millis: u64) -> Observed {
    Observed { since: Some(std::time::Duration::from_millis(millis)), ..woken(true) }
}

fn woken(beat: bool) -> Observed {
    Observed { beat, since: None, wake: vec![key("greeter")] }
}

fn found(beat: &Heartbeat) -> LiveRead {
    LiveRead::Found(beat.clone())
}

/// Returns the only record of registration greeter.
fn only(index: &Index) -> Record {
    let records = index.records_of(&key("greeter"));
    assert_eq!(records.len(), 1, "{records:?}");
    records.into_iter().next().expect("one")
}

/// Everything that a decision depends on, as owned values. Registration greeter has ttl 30 s and interval 10 s.
struct World {
    registration: Registration,
    ttl: TtlHistory,
    pods: HashMap<String, Arc<PodView>>,
    zones: HashMap<String, String>,
    families: Vec<Family>,
    published: AddressSet,
    /// The port of every published endpoint.
    published_port: Option<u16>,
    ranges: OutsideRanges,
    owned: Option<IpAddr>,
    unreadable: HashMap<Arc<str>, Failure>,
    evidence: Evidence,
    term_began: MonotonicTime,
    adopted: Vec<Adopted>,
    /// The earlier addresses of outside instances, while nothing may be changed.
    frozen: Option<Earlier>,
    cordons: Vec<Cordon>,
}

impl World {
    fn new() -> Self {
        Self::with(json!({
            "ttl": "30s", "interval": "10s",
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
            "podSelector": { "matchLabels": { "app": "greeter" } },
        }))
    }

    fn with(spec: Value) -> Self {
        let registration = Registration::validate(&object(spec));
        Self {
            ttl: TtlHistory::new(registration.ttl),
            registration,
            pods: HashMap::new(),
            zones: [("node-1".to_owned(), "eu-1a".to_owned())].into(),
            families: vec![Family::V4],
            published: AddressSet::new(),
            published_port: None,
            ranges: ["shop=192.0.2.0/24", "shop=2001:db8::/64"]
                .map(|range| range.parse().expect("a range"))
                .into_iter()
                .collect(),
            owned: None,
            unreadable: HashMap::new(),
            // Acts as if a probe came back at every moment.
            evidence: Evidence { probed: Some(at(u64::MAX)), ..Evidence::default() },
            term_began: at(0),
            adopted: Vec::new(),
            frozen: None,
            cordons: Vec::new(),
        }
    }

    fn pod(mut self, name: &str, json: Value) -> Self {
        self.pods.insert(name.to_owned(), Arc::new(pod(json)));
        self
    }

    fn published(mut self, address: &str) -> Self {
        self.published.insert(address.parse().expect("an address"));
        self
    }

    fn decide(&self, index: &Index, now: MonotonicTime) -> Vec<Verdict> {
        let records = index.records_of(&self.registration.key);
        self.with_facts(&records, &self.evidence, now, decide)
    }

    fn with_facts<T>(
        &self,
        records: &[Record],
        evidence: &Evidence,
        now: MonotonicTime,
        ask: impl FnOnce(&Facts<'_>) -> T,
    ) -> T {
        ask(&Facts {
            registration: &self.registration,
            instances: Instances { records, adopted: &self.adopted, cordons: &self.cordons },
            liveness: Liveness {
                ttl: &self.ttl,
                evidence,
                unreadable: &self.unreadable,
                term_began: self.term_began,
            },
            service: TargetService {
                name: "greeter",
                families: &self.families,
                ports: &self.registration.ports,
                shared_ports: OnceCell::new(),
            },
            published: PublishedNow {
                addresses: &self.published,
                contains: &|_, port| self.published_port == Some(port.port),
                frozen: self.frozen.as_ref(),
            },
            cluster: Cluster {
                pods: &self.pods,
                zones: &self.zones,
                ranges: &self.ranges,
                owner_of: &|ip| (self.owned == Some(ip)).then(|| "Pod shop/cart".to_owned()),
            },
            now,
        })
    }

    /// Returns the verdict about the only instance.
    fn one(&self, index: &Index, now: MonotonicTime) -> Verdict {
        let mut verdicts = self.decide(index, now);
        assert_eq!(verdicts.len(), 1, "{verdicts:?}");
        verdicts.remove(0)
    }

    /// Decides, and reports the decision to the index. Returns whether the decision stands.
    fn commit(&self, index: &mut Index, now: MonotonicTime) -> bool {
        let verdicts = self.decide(index, now);
        commit(index, &verdicts, now) == CommitResult::Accepted
    }
}

fn commit(index: &mut Index, verdicts: &[Verdict], now: MonotonicTime) -> CommitResult {
    index.commit(&key("greeter"), verdicts.iter().filter_map(Verdict::lease_decision), now)
}

fn object(spec: Value) -> ServiceRegistration {
    serde_json::from_value(json!({
        "apiVersion": "beatkeeper.dev/v1alpha1",
        "kind": "ServiceRegistration",
        "metadata": { "name": "greeter", "namespace": "shop", "uid": "sreg-uid", "generation": 3 },
        "spec": spec,
    }))
    .expect("a ServiceRegistration")
}

/// Returns state, reason and message as one line, for comparisons.
fn line(verdict: &Verdict) -> String {
    format!("{} {}: {}", verdict.state.as_str(), verdict.reason.as_str(), verdict.message)
}

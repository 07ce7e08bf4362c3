//! A registration with what it publishes, which can be stalled and edited.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

use super::super::*;
use crate::{
    cluster_cache::ClusterCache,
    inputs::{Inputs, preconditions, snapshot},
    objects::decode::Lenient,
    plan::{
        build,
        write::{Plan, Write},
    },
    vocabulary::address::Named,
};

/// An address, and the name and number of a port.
pub(super) type Tuple = (String, String, i32);

/// A registration, its instances and what is published for them, in the state in which the API server would
/// keep it.
pub(super) struct Scene {
    spec: Value,
    pub(super) annotations: Value,
    service: Option<Value>,
    pub(super) judge: World,
    pub(super) cluster: ClusterCache,
    /// The beating instances, by name.
    pub(super) beating: BTreeMap<&'static str, Heartbeat>,
    pub(super) earlier: Arc<Earlier>,
    pub(super) version: u64,
}

const OUTSIDE: [(&str, &str); 3] =
    [("vm-1", "192.0.2.1"), ("vm-2", "192.0.2.2"), ("vm-3", "2001:db8::3")];

impl Scene {
    /// Three instances that name their addresses, two declared instances at one address, and two Pods.
    pub(super) fn published() -> Self {
        let mut beating = BTreeMap::new();
        for (name, address) in OUTSIDE {
            let mut beat = beat(name, 1, 1);
            beat.content.addresses = vec![Named::from(address)];
            beating.insert(name, beat);
        }
        for name in ["edge-1", "edge-2"] {
            let mut beat = beat(name, 1, 1);
            beat.content.addresses.clear();
            beating.insert(name, beat);
        }
        let mut judge = World::new();
        for (name, ip) in [("pod-1", "10.88.0.1"), ("pod-2", "10.88.0.2")] {
            beating.insert(name, pod_beat(name, 1, 1));
            judge = judge.pod(name, ready_pod(name, &[ip]));
        }
        let spec = json!({
            "ttl": "30s", "interval": "10s", "serviceName": "web",
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
            "podSelector": { "matchLabels": { "app": "greeter" } },
            "instances": [
                { "name": "edge-1", "addresses": ["192.0.2.101"], "zone": "eu-1b" },
                { "name": "edge-2", "addresses": ["192.0.2.101"],
                  "ports": [{ "name": "http", "port": 8443 }] },
            ],
        });
        let service = json!({
            "metadata": { "name": "web", "namespace": "shop", "uid": "svc-uid" },
            "spec": {
                "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4", "IPv6"],
                "ports": [{ "name": "http", "port": 80 }],
            },
        });
        let mut scene = Self {
            spec,
            annotations: json!({}),
            service: Some(service),
            judge,
            cluster: ClusterCache::default(),
            beating,
            earlier: Arc::default(),
            version: 10,
        };
        assert_eq!(scene.reconcile(), None, "not stalled");
        assert_eq!(scene.slices().len(), 7, "everything is published: {:?}", scene.slices());
        scene
    }

    fn object(&self) -> ServiceRegistration {
        let object = json!({
            "apiVersion": "beatkeeper.dev/v1alpha1",
            "kind": "ServiceRegistration",
            "metadata": {
                "name": "greeter", "namespace": "shop", "uid": "sreg-uid",
                "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": self.annotations,
            },
            "spec": self.spec,
        });
        let Lenient(object) = parsed(object);
        object
    }

    /// Reconciles once, and returns the reason of the stall. During a stall, it checks after each single write
    /// that no published address with a beating instance has left.
    pub(super) fn reconcile(&mut self) -> Option<&'static str> {
        let object = self.object();
        self.cluster.put_registration(&object);
        let at = self.next_version();
        match &self.service {
            Some(service) => {
                let mut service = service.clone();
                service["metadata"]["resourceVersion"] = at.into();
                self.cluster.put::<Service>(parsed(service));
            }
            None => {
                let gone = json!({ "metadata": {
                    "name": "web", "namespace": "shop", "resourceVersion": at,
                }});
                self.cluster.remove::<Service>(&parsed(gone));
            }
        }
        self.judge.registration = snapshot::registration(&object, &self.cluster);
        let snapshot = snapshot::take(&self.judge.registration, &self.cluster);
        let service = snapshot.service.clone();
        let stall =
            preconditions::stall(&self.judge.registration, service.as_deref(), &snapshot.conflicts);
        let mut inputs = Inputs::new(snapshot, service, stall);
        inputs.earlier = self.earlier.clone();
        self.judge.frozen = inputs.frozen().cloned();
        self.judge.families = inputs.families().to_vec();
        self.judge.published = inputs.snapshot.published.clone();
        let mut index = index();
        for (n, beat) in self.beating.values().enumerate() {
            index.observe(
                "shop",
                Heartbeat { version: Version(n as u64 + 1), ..beat.clone() },
                at_rest(),
            );
        }
        let verdicts = self.judge.decide(&index, at_rest());
        let style = build::PlanSettings { publish_endpoints: true, max_endpoints_per_slice: 100 };
        let plan = build::build(
            &self.judge.registration,
            &inputs,
            &verdicts,
            style,
            Timestamp::UNIX_EPOCH,
        );
        self.carry_out(plan, inputs.is_closed());
        if !inputs.is_closed() {
            self.earlier = Arc::new(Earlier::declared(&self.judge.registration));
        }
        inputs
            .stall
            .map(|stall| stall.reason.as_str())
            .or(self.service.is_none().then_some("NoService"))
    }

    fn carry_out(&mut self, plan: Plan, stalled: bool) {
        let (slices, endpoints) = (self.living(self.slices()), self.living(self.endpoints()));
        for write in plan.phases.into_iter().flatten() {
            match write {
                Write::CreateSlice(mut slice) => {
                    let version = self.next_version();
                    slice.metadata.name = Some(format!("greeter-{version}"));
                    slice.metadata.resource_version = Some(version);
                    self.cluster.put(slice);
                }
                Write::UpdateSlice(mut slice, _) => {
                    slice.metadata.resource_version = Some(self.next_version());
                    self.cluster.put(slice);
                }
                Write::DeleteSlice { name, .. } => {
                    let version = self.next_version();
                    let gone = json!({ "addressType": "IPv4", "endpoints": [], "metadata": {
                        "name": name, "namespace": "shop", "resourceVersion": version,
                    }});
                    self.cluster.remove::<EndpointSlice>(&parsed(gone));
                }
                Write::CreateEndpoints(mut object) | Write::UpdateEndpoints(mut object, _) => {
                    object.metadata.resource_version = Some(self.next_version());
                    self.cluster.put(object);
                }
                Write::DeleteEndpoints { name, .. } => panic!("Endpoints {name} are kept"),
            }
            if stalled {
                assert!(self.slices().is_superset(&slices), "{:?} of {slices:?}", self.slices());
            }
        }
        if stalled {
            assert!(self.endpoints().is_superset(&endpoints), "{:?}", self.endpoints());
        }
    }

    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// Returns the endpoints in the slices.
    pub(super) fn slices(&self) -> BTreeSet<Tuple> {
        let (slices, _) = self.cluster.slices(&key("web"), "sreg-uid");
        let mut all = BTreeSet::new();
        // A consumer finds a slice by its label.
        let label = |slice: &EndpointSlice| {
            slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name").cloned()
        };
        for slice in slices.iter().filter(|slice| label(slice).as_deref() == Some("web")) {
            let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
            for (address, port) in
                addresses.flat_map(|ip| slice.ports.iter().flatten().map(move |port| (ip, port)))
            {
                let name = port.name.clone().expect("a name");
                all.insert((address.clone(), name, port.port.expect("a number")));
            }
        }
        all
    }

    /// Returns the endpoints in the Endpoints object.
    fn endpoints(&self) -> BTreeSet<Tuple> {
        let object = self.cluster.endpoints(&key("web"));
        let subsets = object.iter().flat_map(|it| it.subsets.iter().flatten());
        let mut all = BTreeSet::new();
        for subset in subsets {
            for address in subset.addresses.iter().flatten() {
                for port in subset.ports.iter().flatten() {
                    all.insert((address.ip.clone(), port.name.clone().expect("a name"), port.port));
                }
            }
        }
        all
    }

    /// Returns the endpoints that have a beating instance.
    pub(super) fn living(&self, tuples: BTreeSet<Tuple>) -> BTreeSet<Tuple> {
        let lives = |(address, _, port): &Tuple| match (address.as_str(), port) {
            ("192.0.2.101", 8443) => self.beating.contains_key("edge-2"),
            ("192.0.2.101", _) => self.beating.contains_key("edge-1"),
            ("10.88.0.1", _) => self.beating.contains_key("pod-1"),
            ("10.88.0.2", _) => self.beating.contains_key("pod-2"),
            (address, _) => OUTSIDE.iter().any(|(name, known)| {
                *known == address
                    && self.beating.get(name).is_some_and(|beat| beat.content.cordoned.is_none())
            }),
        };
        let refused = self.judge.owned.map(|address| address.to_string());
        let allowed = |(address, ..): &Tuple| Some(address) != refused.as_ref();
        tuples.into_iter().filter(lives).filter(allowed).collect()
    }

    /// Makes the registration stall for this reason.
    pub(super) fn stall(&mut self, stall: Stall) {
        let version = self.next_version();
        match stall {
            Stall::Annotation => {
                self.annotations["beatkeeper.dev/dry-run"] = "True".into();
            }
            Stall::Unreadable => self.spec["ttl"] = json!(30),
            Stall::Selector => self.service("selector", json!({ "app": "greeter" })),
            Stall::ExternalName => self.service("type", "ExternalName".into()),
            Stall::Ports => self.service("ports", json!([{ "name": "other", "port": 80 }])),
            Stall::Gone => self.service = None,
            Stall::Slice => {
                self.cluster.put::<EndpointSlice>(parsed(json!({
                    "metadata": {
                        "name": "by-hand", "namespace": "shop", "resourceVersion": version,
                        "labels": { "kubernetes.io/service-name": "web" },
                    },
                    "addressType": "IPv4",
                    "endpoints": [{ "addresses": ["192.0.2.77"] }],
                })));
            }
            Stall::Elder => {
                let elder = json!({
                    "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
                    "metadata": {
                        "name": "elder", "namespace": "shop", "uid": "elder-uid",
                        "creationTimestamp": "2025-01-01T00:00:00Z",
                    },
                    "spec": { "serviceName": "web", "ports": [{ "name": "http", "port": 80 }] },
                });
                self.cluster.put_registration(&parsed(elder));
            }
        }
    }

    fn service(&mut self, field: &str, value: Value) {
        if let Some(service) = &mut self.service {
            service["spec"][field] = value;
        }
    }

    pub(super) fn edit(&mut self, edit: Edit) {
        let spec = &mut self.spec;
        match edit {
            Edit::Spec(field, value) => spec[field] = value,
            Edit::Service(field, value) => self.service(field, value),
            Edit::Leave(name) => drop(self.beating.remove(name)),
            Edit::Cordon(name) => {
                if let Some(beat) = self.beating.get_mut(name) {
                    beat.content.cordoned = Some("bad disk".to_owned());
                }
            }
        }
    }
}

fn at_rest() -> MonotonicTime {
    at(1000)
}

pub(super) fn parsed<K: serde::de::DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).expect("the API server would have taken it")
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Stall {
    Annotation,
    Unreadable,
    Selector,
    ExternalName,
    Ports,
    Gone,
    Slice,
    Elder,
}

pub(super) const STALLS: [Stall; 8] = [
    Stall::Annotation,
    Stall::Unreadable,
    Stall::Selector,
    Stall::ExternalName,
    Stall::Ports,
    Stall::Gone,
    Stall::Slice,
    Stall::Elder,
];

#[derive(Debug, Clone)]
pub(super) enum Edit {
    Spec(&'static str, Value),
    Service(&'static str, Value),
    Leave(&'static str),
    Cordon(&'static str),
}

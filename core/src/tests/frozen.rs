//! What a stalled registration keeps published. Under any stall and any edits, living addresses stay and dead
//! addresses leave.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use proptest::{collection::vec, prelude::*};

use super::*;
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
type Tuple = (String, String, i32);

/// A registration, its instances and what is published for them, in the state in which the API server would
/// keep it.
struct Scene {
    spec: Value,
    annotations: Value,
    service: Option<Value>,
    judge: World,
    cluster: ClusterCache,
    /// The beating instances, by name.
    beating: BTreeMap<&'static str, Heartbeat>,
    earlier: Arc<Earlier>,
    version: u64,
}

const OUTSIDE: [(&str, &str); 3] =
    [("vm-1", "192.0.2.1"), ("vm-2", "192.0.2.2"), ("vm-3", "2001:db8::3")];

impl Scene {
    /// Three instances that name their addresses, two declared instances at one address, and two Pods.
    fn published() -> Self {
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
    fn reconcile(&mut self) -> Option<&'static str> {
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
    fn slices(&self) -> BTreeSet<Tuple> {
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
    fn living(&self, tuples: BTreeSet<Tuple>) -> BTreeSet<Tuple> {
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
    fn stall(&mut self, stall: Stall) {
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

    fn edit(&mut self, edit: Edit) {
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

fn parsed<K: serde::de::DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).expect("the API server would have taken it")
}

#[derive(Debug, Clone, Copy)]
enum Stall {
    Annotation,
    Unreadable,
    Selector,
    ExternalName,
    Ports,
    Gone,
    Slice,
    Elder,
}

const STALLS: [Stall; 8] = [
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
enum Edit {
    Spec(&'static str, Value),
    Service(&'static str, Value),
    Leave(&'static str),
    Cordon(&'static str),
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let ports = [
        json!([{ "name": "http", "port": 80, "targetPort": 9090 }]),
        json!([{ "name": "http", "port": 80, "targetPort": 8443 }]),
        json!([{ "name": "http", "port": 80, "targetPort": "missing" }]),
        json!([{ "name": "http", "port": 80, "targetPort": "web" }]),
        json!([{ "name": "web", "port": 80, "targetPort": 8080 }]),
        json!([{ "name": "http", "port": 80, "protocol": "UDP" }]),
        json!([{ "name": "http", "port": 80, "targetPort": 8080 },
               { "name": "admin", "port": 81, "targetPort": 9090 }]),
        json!([{ "name": "http", "port": "80" }]),
        json!([]),
        json!("http"),
    ];
    let selectors = [
        json!(null),
        json!({ "matchLabels": { "app": "other" } }),
        json!({ "matchLabels": { "app": 1 } }),
        json!({ "matchExpressions": [{ "key": "app", "operator": "Is" }] }),
    ];
    let instances = [
        json!([]),
        json!("none"),
        json!([{ "name": "edge-1", "addresses": ["192.0.2.102"] }]),
        json!([{ "name": "edge-1", "addresses": "192.0.2.101" }, { "name": "edge-2" }]),
        json!([{ "name": "edge-1", "addresses": ["192.0.2.101"],
                 "ports": [{ "name": "http", "port": 1 }] },
               { "name": "edge-2", "addresses": ["192.0.2.101"],
                 "ports": [{ "name": "http", "port": 2 }] }]),
        json!([{ "name": "edge-1", "addresses": ["nonsense"] }]),
        json!([{ "name": "vm-1", "addresses": ["192.0.2.103"] }]),
    ];
    let families = [json!(["IPv6"]), json!(["IPv4"]), json!(["IPv6", "IPv4"])];
    let service_ports = [
        json!([{ "name": "other", "port": 80 }]),
        json!([]),
        json!([{ "name": "http", "port": 9 }]),
    ];
    let pick = |values: Vec<Value>| proptest::sample::select(values);
    prop_oneof![
        3 => pick(ports.into()).prop_map(|value| Edit::Spec("ports", value)),
        2 => pick(selectors.into()).prop_map(|value| Edit::Spec("podSelector", value)),
        2 => pick(instances.into()).prop_map(|value| Edit::Spec("instances", value)),
        1 => pick(families.into()).prop_map(|value| Edit::Service("ipFamilies", value)),
        1 => pick(service_ports.into()).prop_map(|value| Edit::Service("ports", value)),
        1 => Just(Edit::Service("clusterIP", "None".into())),
        1 => Just(Edit::Spec("interval", json!(["1s"]))),
        1 => Just(Edit::Spec("serviceName", json!(7))),
        1 => Just(Edit::Spec("protection", json!({ "minReady": "all" }))),
        2 => proptest::sample::select(vec!["vm-1", "vm-3", "pod-1"]).prop_map(Edit::Leave),
        1 => Just(Edit::Cordon("vm-2")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn under_any_stall_and_any_edits_no_living_address_leaves_and_the_dead_do(
        stall in proptest::sample::select(STALLS.to_vec()),
        edits in vec(any_edit(), 1..6),
    ) {
        let mut scene = Scene::published();
        let before = scene.slices();
        scene.stall(stall);
        prop_assert!(scene.reconcile().is_some(), "{stall:?}");
        prop_assert_eq!(scene.slices(), before.clone());
        for edit in edits {
            scene.edit(edit);
            if scene.reconcile().is_none() {
                // The edit has removed the reason of the stall.
                return Ok(());
            }
            let living = scene.living(before.clone());
            prop_assert_eq!(scene.slices(), living.clone(), "exactly the living");
            let version = scene.version;
            scene.reconcile();
            prop_assert_eq!(scene.version, version + 1, "nothing more is written");
        }
    }
}

#[test]
fn a_changed_port_during_a_stall_is_published_when_the_stall_ends() {
    let mut scene = Scene::published();
    scene.stall(Stall::Annotation);
    scene.edit(Edit::Spec("ports", json!([{ "name": "http", "port": 80, "targetPort": 9090 }])));
    assert_eq!(scene.reconcile(), Some("InvalidSpec"));
    let numbers = |scene: &Scene| {
        scene.slices().into_iter().map(|(.., port)| port).collect::<BTreeSet<i32>>()
    };
    assert_eq!(numbers(&scene), BTreeSet::from([8080, 8443]));
    scene.annotations = json!({});
    assert_eq!(scene.reconcile(), None);
    assert_eq!(numbers(&scene), BTreeSet::from([8443, 9090]));
}

#[test]
fn a_stall_adds_no_one() {
    let mut scene = Scene::published();
    let before = scene.slices();
    let mut newcomer = beat("vm-9", 1, 1);
    newcomer.content.addresses = vec![Named::from("192.0.2.9")];
    scene.beating.insert("vm-9", newcomer);
    scene.stall(Stall::Selector);
    scene.reconcile();
    assert_eq!(scene.slices(), before);
}

#[test]
fn during_a_stall_another_pod_at_the_address_of_a_dead_one_does_not_take_its_place() {
    let mut scene = Scene::published();
    scene.stall(Stall::Annotation);
    scene.beating.remove("pod-1");
    let successor = ready_pod("pod-3", &["10.88.0.1"]);
    scene.judge.pods.insert("pod-3".to_owned(), Arc::new(pod(successor)));
    scene.beating.insert("pod-3", pod_beat("pod-3", 1, 1));
    scene.reconcile();
    assert!(scene.slices().iter().all(|(address, ..)| address != "10.88.0.1"));
}

#[test]
fn of_two_instances_at_one_address_the_dead_one_leaves_during_a_stall() {
    for (dead, left) in [("edge-1", 8443), ("edge-2", 8080)] {
        let mut scene = Scene::published();
        scene.stall(Stall::Slice);
        scene.beating.remove(dead);
        scene.reconcile();
        let at_edge = |(address, _, port): Tuple| (address == "192.0.2.101").then_some(port);
        let ports: Vec<i32> = scene.slices().into_iter().filter_map(at_edge).collect();
        assert_eq!(ports, [left], "{dead} is dead");
    }
}

#[test]
fn what_must_not_be_published_any_more_leaves_during_a_stall() {
    let mut scene = Scene::published();
    scene.stall(Stall::Annotation);
    scene.judge.owned = Some("192.0.2.1".parse().expect("an address"));
    scene.reconcile();
    assert!(scene.slices().iter().all(|(address, ..)| address != "192.0.2.1"));
}

/// After a start the operator learns the addresses of declared instances from the status.
#[test]
fn an_operator_that_starts_during_a_stall_knows_from_the_status_where_instances_were() {
    let mut scene = Scene::published();
    let before = scene.slices();
    scene.stall(Stall::Annotation);
    scene
        .edit(Edit::Spec("instances", json!([{ "name": "edge-1", "addresses": ["192.0.2.102"] }])));
    scene.earlier = Arc::new(Earlier::from_status(&parsed(json!({ "instances": [
        { "name": "edge-1", "state": "Ready", "reason": "Beating", "addresses": ["192.0.2.101"] },
        { "name": "edge-2", "state": "Ready", "reason": "Beating", "addresses": ["192.0.2.101"] },
    ] }))));
    scene.reconcile();
    assert_eq!(scene.slices(), before);
}

/// If the port names of the Service differed from those of the slices, no endpoint would serve the Service.
#[test]
fn a_service_that_cannot_be_given_new_ports_keeps_what_is_published() {
    let mut scene = Scene::published();
    scene.reconcile();
    let stalled = |scene: &Scene, ports: Value| {
        let object = json!({ "ports": ports });
        let registration = Registration::validate(&super::object(object));
        let snapshot = snapshot::take(&scene.judge.registration, &scene.cluster);
        preconditions::old_ports(&registration, snapshot.service.as_deref(), "forbidden").is_some()
    };
    assert!(stalled(&scene, json!([{ "name": "web", "port": 80 }])));
    assert!(!stalled(&scene, json!([{ "name": "http", "port": 80, "targetPort": 9090 }])));
}

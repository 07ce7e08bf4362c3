//! Any content of slices, Endpoints, Services and statuses leads to a plan of bounded size that publishes the
//! living instance, and to a readable status. It never leads to a panic.

use std::time::Duration;

use beatkeeper_api::{ServiceRegistrationStatus, status::LISTED_INSTANCES_MAX};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use proptest::{collection::vec, option::of, prelude::*};

use super::*;
use crate::{
    cluster_cache::ClusterCache,
    inputs::{Inputs, snapshot},
    objects::decode::Lenient,
    plan::build,
    report::{
        applied::Applied,
        events,
        flapping::Withheld,
        status::{self, Clocks},
        summary::DecisionSummary,
    },
};

/// The address of the living instance.
const LIVING: &str = "192.0.2.1";

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("greeter".to_owned()),
        Just(LIVING.to_owned()),
        Just("2001:db8::1".to_owned()),
        Just("::ffff:192.0.2.1".to_owned()),
        Just("http".to_owned()),
        Just("TCP".to_owned()),
        Just("IPv4".to_owned()),
        Just("IPv6".to_owned()),
        Just("FQDN".to_owned()),
        Just("None".to_owned()),
        Just("Ready".to_owned()),
        Just("x".repeat(5000)),
        any::<String>(),
    ]
}

fn number() -> impl Strategy<Value = i32> {
    prop_oneof![Just(0), Just(80), Just(8080), Just(-1), Just(65_536), any::<i32>()]
}

/// Metadata that shows the owner by our annotation, by our owner reference, by both, or by neither.
fn metadata(name: &str, marked: bool, owned: bool, texts: &[String]) -> Value {
    let mut metadata = json!({
        "name": name, "namespace": "shop", "uid": texts[0], "resourceVersion": texts[1],
        "annotations": { "endpoints.kubernetes.io/last-change-trigger-time": texts[2] },
    });
    if marked {
        metadata["labels"] = json!({
            "kubernetes.io/service-name": "greeter",
            "endpointslice.kubernetes.io/managed-by": "beatkeeper.dev",
            "endpoints.kubernetes.io/managed-by": "beatkeeper.dev",
        });
    }
    if owned {
        metadata["ownerReferences"] = json!([{
            "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
            "name": "greeter", "uid": "sreg-uid", "controller": true,
        }]);
    }
    metadata
}

prop_compose! {
    fn any_slice(name: &'static str)(
        texts in vec(text(), 9),
        (marked, owned, complete) in any::<(bool, bool, bool)>(),
        port in of(number()),
        ready in of(any::<bool>()),
        copies in 0..5_usize,
    ) -> Value {
        let endpoint = json!({
            "addresses": [texts[3], texts[4]],
            "conditions": complete.then(|| json!({ "ready": ready })),
            "hostname": texts[5],
            "targetRef": { "kind": texts[6], "name": texts[7] },
        });
        let empty = json!({ "addresses": [] });
        let mut endpoints = vec![endpoint; copies];
        endpoints.push(empty);
        json!({
            "metadata": metadata(name, marked, owned, &texts),
            "addressType": texts[8],
            "endpoints": complete.then_some(endpoints),
            "ports": ready.map(|_| json!([{ "name": texts[5], "port": port, "protocol": texts[6] }, {}])),
        })
    }
}

prop_compose! {
    fn any_endpoints()(
        texts in vec(text(), 6),
        (marked, owned) in any::<(bool, bool)>(),
        port in number(),
    ) -> Value {
        json!({
            "metadata": metadata("greeter", marked, owned, &texts),
            "subsets": [
                {},
                { "addresses": [{ "ip": texts[3], "nodeName": texts[4] }, { "ip": texts[5] }],
                  "notReadyAddresses": [{ "ip": texts[3] }],
                  "ports": [{ "name": texts[4], "port": port, "protocol": texts[5] }] },
            ],
        })
    }
}

prop_compose! {
    fn any_service()(
        texts in vec(text(), 9),
        number in number(),
        (complete, owned) in any::<(bool, bool)>(),
    ) -> Value {
        json!({
            "metadata": metadata("greeter", false, owned, &texts),
            "spec": complete.then(|| json!({
                "clusterIP": texts[3], "clusterIPs": [texts[3], texts[4]],
                "ipFamilies": [texts[5], texts[6]], "type": texts[7],
                "ports": [{ "name": texts[8], "port": number, "targetPort": texts[4] },
                          { "name": "http", "port": 80 }],
            })),
        })
    }
}

prop_compose! {
    fn any_status()(
        texts in vec(text(), 6),
        numbers in vec(any::<i32>(), 4),
        listed in 0..300_usize,
    ) -> Value {
        let instance = json!({
            "name": texts[0], "state": texts[1], "reason": texts[2], "message": texts[3],
            "addresses": [texts[4]], "lastBeat": "0001-01-01T00:00:00Z",
        });
        json!({
            "ready": numbers[0], "expired": numbers[1], "held": numbers[2], "total": numbers[3],
            "instances": vec![instance; listed],
            "conditions": [{
                "type": texts[5], "status": texts[1], "reason": texts[2], "message": texts[3],
                "lastTransitionTime": "9998-12-31T23:59:59Z",
            }],
        })
    }
}

fn parsed<K: serde::de::DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).expect("the API server would have taken it")
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_is_published_the_living_are_planned_for_and_the_status_is_bounded(
        slices in (any_slice("greeter-a"), any_slice("greeter-b")),
        endpoints in any_endpoints(),
        service in of(any_service()),
        prior in any_status(),
    ) {
        let judge = World::new();
        let mut cluster = ClusterCache::default();
        cluster.put::<EndpointSlice>(parsed(slices.0));
        cluster.put::<EndpointSlice>(parsed(slices.1));
        cluster.put::<Endpoints>(parsed(endpoints));
        let has_service = service.is_some();
        if let Some(service) = service {
            cluster.put::<Service>(parsed(service));
        }
        let mut index = index();
        index.observe("shop", beat("vm-1", 1, 1), at(0));
        let verdicts = judge.decide(&index, at(1000));

        let snapshot = snapshot::take(&judge.registration, &cluster);
        let known = snapshot.slices.len();
        let service = snapshot.service.clone();
        let open = service.as_ref().is_some_and(|it| it.families.contains(&Family::V4));
        let inputs = Inputs::new(snapshot, service, None);
        let style = build::PlanSettings { publish_endpoints: true, max_endpoints_per_slice: 100 };
        let plan = build::build(&judge.registration, &inputs, &verdicts, style, Timestamp::UNIX_EPOCH);
        prop_assert!(plan.phases.len() <= 2);
        // Each known slice may be written in both phases. One slice may be made, and the Endpoints object
        // written.
        prop_assert!(plan.writes().count() <= 2 * known + 2, "{plan}");
        prop_assert!(plan.to_string().len() < 1000 * (known + 2), "{plan}");
        if has_service && open {
            let wanted = plan.writes().map(|write| format!("{write:?}")).collect::<String>();
            let there = inputs.snapshot.published.iter().any(|ip| ip.to_string() == LIVING);
            prop_assert!(there || wanted.contains(LIVING), "{plan}");
        }

        let prior: ServiceRegistrationStatus = parsed(prior);
        let before = events::from_status(&prior);
        let clocks = Clocks { now: at(1000), wall: Timestamp::UNIX_EPOCH };
        let applied = Applied::default();
        let account = DecisionSummary::of(verdicts, applied.published.all());
        let next = status::report(&prior, Some(3), &account, None, &applied, clocks);
        prop_assert!(next.instances.len() <= LISTED_INSTANCES_MAX);
        prop_assert_eq!(next.total, 1);
        prop_assert!(next.conditions.iter().all(|condition| condition.message.len() < 1000));
        let notices = events::of(&before, &account.lines, &Withheld::default());
        prop_assert!(notices.len() <= 2, "one that came, one that went: {notices:?}");
        prop_assert!(notices.iter().all(|notice| notice.note.chars().count() <= 1000));
        let again = status::report(&next, Some(3), &account, None, &applied, clocks);
        prop_assert!(!status::differs(&next, &again), "what is told once is not written again");
    }
}

/// These objects may have passed an older schema of the kind, or pass the present one, which accepts times that
/// our types cannot represent. One such object must not keep the operator from reading the others in the same
/// list.
#[test]
fn a_registration_from_before_the_rules_is_read_with_what_can_be_read_of_it() {
    let read = |given: Value| -> Registration {
        let mut object = json!({
            "apiVersion": "beatkeeper.dev/v1alpha1",
            "kind": "ServiceRegistration",
            "metadata": { "name": "greeter", "namespace": "shop" },
            "spec": { "ttl": "30s", "interval": "10s", "ports": [{ "name": "grpc", "port": 80 }] },
        });
        for (part, fields) in given.as_object().expect("parts") {
            for (field, value) in fields.as_object().expect("fields") {
                object[part][field] = value.clone();
            }
        }
        let Lenient(object) = serde_json::from_value(object).expect("it is read");
        Registration::validate(&object)
    };
    let spec = |field: &str, value: Value| {
        let registration = read(json!({ "spec": { field: value } }));
        let told = messages(&registration.problems).join("; ");
        assert!(told.contains(&format!("spec.{field} cannot be read: ")), "{told}");
        registration
    };
    let no_port = spec("ports", json!([{ "name": "http" }, { "name": "grpc", "port": 80 }]));
    assert_eq!(no_port.ports.len(), 1, "the sound one");
    for ports in [
        json!([{ "name": "http", "port": "80" }]),
        json!([{ "name": "http", "port": 5_000_000_000_u64 }]),
        json!(null),
        json!("grpc"),
    ] {
        assert_eq!(spec("ports", ports).ports, []);
    }
    let longest = Duration::from_secs(24 * 3600);
    assert_eq!(spec("ttl", json!(30)).ttl, longest, "no instance is pruned by a guess");
    spec("interval", json!({ "seconds": 3 }));
    spec("instances", json!([{ "name": "vm-1" }]));
    let protected = spec("protection", json!({ "minReady": "2" }));
    assert_eq!(protected.min_ready, usize::try_from(i32::MAX).expect("it fits"));
    let selector = spec("podSelector", json!({ "matchLabels": { "app": 1 } }));
    assert!(selector.selector_unreadable, "no Pod has to leave");
    let odd_status = read(json!({ "status": { "lastChangeTime": "9999-12-31T23:59:59Z" } }));
    assert_eq!(odd_status.problems, [], "what we write ourselves is no problem of the user");
}

//! Bad input harms only its author: it is rejected with a reason, or ignored.

use std::time::Duration;

use beatkeeper_api::heartbeat;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Service};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, PostParams},
};
use serde_json::{Value, json};

use crate::support::{TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_secs(1);

/// The name of the instance, the bad values, the reason, and a part of the message.
type Case<'a> = (&'a str, Vec<(&'static str, Value)>, &'static str, &'static str);

/// A Lease that is well-formed except for the values in `bad`, given by JSON pointer.
fn lease(instance: &str, bad: &[(&str, Value)]) -> Value {
    let mut lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": format!("greeter.{instance}"),
            "labels": { heartbeat::REGISTRATION_LABEL: "greeter" },
            "annotations": { heartbeat::ADDRESSES_ANNOTATION: "192.0.2.200" },
        },
        "spec": { "holderIdentity": instance, "renewTime": "2026-11-22T10:00:00.000000Z" },
    });
    for (pointer, value) in bad {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = lease.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Value::Null => parent.remove(&name.replace("~1", "/")),
            value => parent.insert(name.replace("~1", "/"), value.clone()),
        };
    }
    lease
}

impl TestNamespace {
    async fn create_lease(&self, lease: Value) -> Result<(), kube::Error> {
        let any = ApiResource::erase::<Lease>(&());
        let leases: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.name, &any);
        let lease = serde_json::from_value(lease).unwrap();
        leases.create(&PostParams::default(), &lease).await.map(drop)
    }
}

const ADDRESSES: &str = "/metadata/annotations/beatkeeper.dev~1addresses";

#[tokio::test(flavor = "multi_thread")]
async fn bad_leases_are_rejected_with_a_reason_and_harm_no_other_instance() {
    let ns = TestNamespace::new("garbage").await;
    let elsewhere = ns.plane.namespace("elsewhere").await.unwrap();
    let pods = format!("--outside-range={}=10.0.0.0/8", ns.name);
    let metadata = format!("--outside-range={}=169.254.0.0/16", ns.name);
    let operator = ns.operator_with(&[&pods, &metadata]);
    ns.pod("cart", &["10.88.0.7"], json!({})).await;
    let taken = ns.pod("named", &["10.88.0.8"], json!({})).await;
    let away = TestNamespace { plane: ns.plane, client: ns.client.clone(), name: elsewhere };
    let foreign = away.pod("away", &["10.88.0.9"], json!({})).await;
    let other: Service = ns
        .create(json!({ "metadata": { "name": "other" }, "spec": { "ports": [{ "port": 80 }] } }))
        .await;
    let cluster_ip = other.spec.unwrap().cluster_ip.unwrap();
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("healthy", "192.0.2.1"), INTERVAL).await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    let observer = ns.observe("greeter").await;

    let pod = |name: &str, uid: &str| {
        let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid }]);
        ("/metadata/ownerReferences", owner)
    };
    let nobody = "00000000-0000-0000-0000-000000000000";
    let longest = "x".repeat(189);
    let rejected: Vec<Case> = vec![
        (
            "no-holder",
            vec![("/spec/holderIdentity", Value::Null)],
            "HolderMissing",
            "set spec.holderIdentity",
        ),
        (
            "other-holder",
            vec![("/spec/holderIdentity", json!("somebody"))],
            "HolderMismatch",
            "\"somebody\"",
        ),
        (
            "huge-holder",
            vec![("/spec/holderIdentity", json!("h".repeat(200_000)))],
            "HolderMismatch",
            "hhhh",
        ),
        ("no-spec", vec![("/spec", Value::Null)], "HolderMissing", "set spec.holderIdentity"),
        ("no-address", vec![(ADDRESSES, Value::Null)], "AddressMissing", "it names no address"),
        ("empty-address", vec![(ADDRESSES, json!(""))], "AddressMissing", "it names no address"),
        ("commas", vec![(ADDRESSES, json!(",, ,"))], "AddressMissing", "it names no address"),
        (
            "words",
            vec![(ADDRESSES, json!("vm-1.example"))],
            "AddressRefused",
            "is not an IP address",
        ),
        (
            "with-port",
            vec![(ADDRESSES, json!("192.0.2.9:80"))],
            "AddressRefused",
            "is not an IP address",
        ),
        (
            "zeros",
            vec![(ADDRESSES, json!("192.0.2.010"))],
            "AddressRefused",
            "is not an IP address",
        ),
        (
            "one-bad",
            vec![(ADDRESSES, json!("192.0.2.9,127.0.0.1"))],
            "AddressRefused",
            "a loopback address",
        ),
        (
            "huge-address",
            vec![(ADDRESSES, json!("1".repeat(200_000)))],
            "AddressRefused",
            "is not an IP address",
        ),
        ("loopback", vec![(ADDRESSES, json!("127.0.0.1"))], "AddressRefused", "a loopback address"),
        (
            "link-local",
            vec![(ADDRESSES, json!("169.254.1.1"))],
            "AddressRefused",
            "a link-local address",
        ),
        (
            "metadata",
            vec![(ADDRESSES, json!("169.254.169.254"))],
            "AddressRefused",
            "a link-local address",
        ),
        (
            "mapped",
            vec![(ADDRESSES, json!("::ffff:127.0.0.1"))],
            "AddressRefused",
            "written as IPv6",
        ),
        (
            "unspecified",
            vec![(ADDRESSES, json!("0.0.0.0"))],
            "AddressRefused",
            "the unspecified address",
        ),
        (
            "outside",
            vec![(ADDRESSES, json!("203.0.113.1"))],
            "AddressRefused",
            "outside the ranges allowed",
        ),
        ("a-pods", vec![(ADDRESSES, json!("10.88.0.7"))], "AddressRefused", "belongs to Pod"),
        (
            "a-services",
            vec![(ADDRESSES, json!(cluster_ip))],
            "AddressRefused",
            "belongs to Service",
        ),
        ("missing", vec![pod("missing", nobody)], "PodNotFound", "there is no Pod missing"),
        ("named", vec![pod("named", nobody)], "PodReplaced", "an earlier Pod named"),
        ("away", vec![pod("away", &foreign)], "PodNotFound", "there is no Pod away in namespace"),
        (
            longest.as_str(),
            vec![(ADDRESSES, json!("nowhere"))],
            "AddressRefused",
            "is not an IP address",
        ),
    ];
    for (instance, bad, reason, hint) in rejected {
        let status = eventually(&format!("{instance} is Rejected ({reason})"), async || {
            // The garbage collector may remove a Lease whose Pod does not exist. The Lease is then
            // created again.
            let _ = ns.create_lease(lease(instance, &bad)).await;
            let listed = ns.registration("greeter").await.status?.instances;
            listed.into_iter().find(|known| known.name == instance && known.reason == reason)
        })
        .await;
        assert_eq!(status.state, "Rejected");
        assert!(status.message.contains(hint), "{instance}: {}", status.message);
        assert!(status.message.len() < 1000, "{instance}: {}", status.message);
    }
    let too_long = format!("greeter.{}", "x".repeat(245));
    let label = "/metadata/labels/beatkeeper.dev~1registration";
    let misnamed = [("checkout.vm-1", vec![]), ("greeter", vec![]), (&*too_long, vec![])];
    for (name, mut bad) in misnamed {
        bad.push(("/metadata/name", json!(name)));
        ns.create_lease(lease("misnamed", &bad)).await.unwrap();
        let instance = format!("lease/{name}");
        let status = ns.instance("greeter", &instance, "Rejected", "NameMismatch").await;
        assert!(status.message.contains("create it anew under that name"), "{}", status.message);
    }
    let unknown =
        lease("vm-1", &[(label, json!("nobody")), ("/metadata/name", json!("nobody.vm-1"))]);
    ns.create_lease(unknown).await.unwrap();
    let empty = lease("no-label", &[(label, json!(""))]);
    ns.create_lease(empty).await.unwrap();
    let never = lease("never", &[("/spec/renewTime", Value::Null)]);
    ns.create_lease(never).await.unwrap();
    let status = ns.instance("greeter", "never", "Waiting", "NeverBeat").await;
    assert!(status.message.contains("has no spec.renewTime"), "{}", status.message);
    let too_much = [("/metadata/annotations/beatkeeper.dev~1note", json!("n".repeat(300_000)))];
    let refused = ns.create_lease(lease("too-much", &too_much)).await;
    assert!(refused.is_err(), "the API server takes 256 kB of annotations");

    // The state is stable: nothing more is written about any of them, while the healthy instance
    // beats.
    let mark = ns.settled(Duration::from_secs(3)).await;
    tokio::time::sleep(2 * INTERVAL).await;
    assert_eq!(ns.written_since(mark).await, []);
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    assert_eq!(observer.left(), [""; 0]);
    let status = ns.registration("greeter").await.status.unwrap();
    assert!(
        status.instances.iter().all(|known| known.name != "no-label"),
        "it belongs to no registration"
    );
    assert_eq!(status.ready, 1);
    let log = operator.logged();
    let complaints: Vec<&str> =
        log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    let unexpected = complaints.iter().filter(|line| !line.contains("Instance"));
    assert_eq!(unexpected.count(), 0, "{complaints:?}");
    assert!(!log.contains("panicked"), "{log}");
    let _ = taken;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_words_of_an_instance_that_lives_are_told_and_bounded() {
    let ns = TestNamespace::new("odd").await;
    let operator = ns.operator();
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("healthy", "192.0.2.1"), INTERVAL).await;
    let health = "/metadata/annotations/beatkeeper.dev~1health";
    let note = "/metadata/annotations/beatkeeper.dev~1note";
    let odd = [
        ("sick", health, json!("Fine, thanks"), "192.0.2.2"),
        ("silent-note", note, json!(""), "192.0.2.3"),
        ("long-note", note, json!("ö".repeat(100_000)), "192.0.2.4"),
        ("no-duration", "/spec/leaseDurationSeconds", Value::Null, "192.0.2.5"),
        ("all-day", "/spec/leaseDurationSeconds", json!(i32::MAX), "192.0.2.6"),
    ];
    for (instance, pointer, value, address) in odd {
        let bad = [(pointer, value), (ADDRESSES, json!(address))];
        ns.create_lease(lease(instance, &bad)).await.unwrap();
        beats.keep_beating(instance, INTERVAL);
    }
    let status = ns.instance("greeter", "sick", "NotReady", "HealthUnknown").await;
    assert!(status.message.contains("Passing"), "it tells what is known: {}", status.message);
    let ready = ["192.0.2.1", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6"];
    ns.published_as_ready("greeter", &ready).await;
    let status = ns.instance("greeter", "long-note", "Ready", "Beating").await;
    assert_eq!(status.message, format!("{}…", "ö".repeat(heartbeat::NOTE_MAX - 1)));
    let mark = ns.settled(Duration::from_secs(1)).await;
    tokio::time::sleep(2 * INTERVAL).await;
    assert_eq!(ns.written_since(mark).await, []);
    assert!(!operator.logged().contains("ERROR"), "{}", operator.logged());
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_ports_are_refused_by_the_api_server() {
    let ns = TestNamespace::new("impossible").await;
    for port in [0, -1, 65536] {
        let registration = serde_json::from_value(json!({
            "apiVersion": "beatkeeper.dev/v1alpha1",
            "kind": "ServiceRegistration",
            "metadata": { "name": "greeter" },
            "spec": { "ports": [{ "name": "grpc", "port": port }] },
        }))
        .unwrap();
        let refused = ns
            .api::<beatkeeper_api::ServiceRegistration>()
            .create(&PostParams::default(), &registration)
            .await;
        assert!(refused.is_err(), "{port}");
    }
}

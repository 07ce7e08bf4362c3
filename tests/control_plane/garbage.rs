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
type Case = (String, Vec<(&'static str, Value)>, &'static str, &'static str);

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

    /// Creates a Lease, and waits until the status has its reason.
    async fn rejects(&self, (instance, bad, reason, hint): Case) {
        let status = eventually(&format!("{instance} is Rejected ({reason})"), async || {
            // The garbage collector may remove a Lease whose Pod does not exist. The Lease is then
            // created again.
            let _ = self.create_lease(lease(&instance, &bad)).await;
            let listed = self.registration("greeter").await.status?.instances;
            listed.into_iter().find(|known| known.name == instance && known.reason == reason)
        })
        .await;
        assert_eq!(status.state, "Rejected");
        assert!(status.message.contains(hint), "{instance}: {}", status.message);
        assert!(status.message.len() < 1000, "{instance}: {}", status.message);
    }

    /// Waits until the garbage collector has taken the Leases of these instances, whose Pods do not exist.
    async fn has_collected(&self, instances: &[&str]) {
        for instance in instances {
            let lease = format!("greeter.{instance}");
            let is_gone = async || self.lease(&lease).await.is_none().then_some(());
            eventually(&format!("{lease} is collected"), is_gone).await;
        }
    }

    /// Creates a Lease with a name that does not match its instance.
    async fn rejects_name(&self, name: &str) {
        self.create_lease(lease("misnamed", &[("/metadata/name", json!(name))])).await.unwrap();
        let instance = format!("lease/{name}");
        let status = self.instance("greeter", &instance, "Rejected", "NameMismatch").await;
        assert!(status.message.contains("create it anew under that name"), "{}", status.message);
    }
}

const ADDRESSES: &str = "/metadata/annotations/beatkeeper.dev~1addresses";

/// Leases that are rejected. A Service has the address `cluster_ip`; `foreign` is the uid of Pod `away` of another
/// namespace.
fn rejected(cluster_ip: &str, foreign: &str) -> Vec<Case> {
    [holders(), no_addresses(), refused_addresses(cluster_ip), owners(foreign)].concat()
}

fn case(
    instance: &str,
    pointer: &'static str,
    value: Value,
    reason: &'static str,
    hint: &'static str,
) -> Case {
    (instance.to_owned(), vec![(pointer, value)], reason, hint)
}

fn holders() -> Vec<Case> {
    let holder = |instance, holder: Value, reason, hint| {
        case(instance, "/spec/holderIdentity", holder, reason, hint)
    };
    vec![
        holder("no-holder", Value::Null, "HolderMissing", "set spec.holderIdentity"),
        holder("other-holder", json!("another"), "HolderMismatch", "\"another\""),
        holder("huge-holder", json!("h".repeat(200_000)), "HolderMismatch", "hhhh"),
        case("no-spec", "/spec", Value::Null, "HolderMissing", "set spec.holderIdentity"),
    ]
}

fn no_addresses() -> Vec<Case> {
    let values =
        [("no-address", Value::Null), ("empty-address", json!("")), ("commas", json!(",, ,"))];
    let missing = |(instance, value)| {
        case(instance, ADDRESSES, value, "AddressMissing", "it names no address")
    };
    values.map(missing).into()
}

fn refused_addresses(cluster_ip: &str) -> Vec<Case> {
    let no_address = "is not an IP address";
    let (huge, longest) = ("1".repeat(200_000), "x".repeat(189));
    let refused = [
        ("words", "vm-1.example", no_address),
        ("with-port", "192.0.2.9:80", no_address),
        ("zeros", "192.0.2.010", no_address),
        ("one-bad", "192.0.2.9,127.0.0.1", "a loopback address"),
        ("huge-address", &huge, no_address),
        ("loopback", "127.0.0.1", "a loopback address"),
        ("link-local", "169.254.1.1", "a link-local address"),
        ("metadata", "169.254.169.254", "a link-local address"),
        ("mapped", "::ffff:127.0.0.1", "written as IPv6"),
        ("unspecified", "0.0.0.0", "the unspecified address"),
        ("outside", "203.0.113.1", "outside the ranges allowed"),
        ("a-pods", "10.88.0.7", "belongs to Pod"),
        ("a-services", cluster_ip, "belongs to Service"),
        (&longest, "nowhere", no_address),
    ];
    refused
        .map(|(instance, address, hint)| {
            case(instance, ADDRESSES, json!(address), "AddressRefused", hint)
        })
        .into()
}

fn owners(foreign: &str) -> Vec<Case> {
    let unknown = "00000000-0000-0000-0000-000000000000";
    let pod = |name: &str, uid, reason, hint| {
        let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid }]);
        case(name, "/metadata/ownerReferences", owner, reason, hint)
    };
    vec![
        pod("missing", unknown, "PodNotFound", "there is no Pod missing"),
        pod("named", unknown, "PodReplaced", "an earlier Pod named"),
        pod("away", foreign, "PodNotFound", "there is no Pod away in namespace"),
    ]
}

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

    for case in rejected(&cluster_ip, &foreign) {
        ns.rejects(case).await;
    }
    let too_long = format!("greeter.{}", "x".repeat(245));
    for name in ["checkout.vm-1", "greeter", &too_long] {
        ns.rejects_name(name).await;
    }
    let label = "/metadata/labels/beatkeeper.dev~1registration";
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

    ns.has_collected(&["missing", "named", "away"]).await;
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

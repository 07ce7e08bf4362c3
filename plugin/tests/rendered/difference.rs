//! What `diff` says that would change.

use beatkeeper_core::{objects::pod::PodView, report::dry_run::NO_ENDPOINTS, vocabulary::key::Key};
use kubectl_beatkeeper::{
    model::{assemble, difference::Difference, planned::Assuming, store::Store},
    render::difference::{short, unified},
};
use serde_json::{Value, json};

use crate::objects::{lease, listed, now, registration, slice, store};

fn difference(store: &Store) -> Difference {
    let object = store.registrations.values().next().unwrap();
    let view = assemble::registration(store, object, now());
    Difference::of(store, object, &view, Assuming::AsReported, now())
}

fn drawn(store: &Store) -> String {
    unified(&difference(store)).iter().map(|line| line.plain() + "\n").collect()
}

/// A registration whose condition Ready is False for this reason, and Stalled too if it says so.
fn unready(instances: Value, reason: &str, stalled: bool) -> Value {
    let message = if reason == "DryRun" { "dry run: it would publish" } else { "in words" };
    saying(instances, reason, message, stalled)
}

/// The same with a message of the operator. Ready is True if the reason is Published.
fn saying(instances: Value, reason: &str, message: &str, stalled: bool) -> Value {
    let mut object = registration("greeter", instances);
    let condition = |type_: &str, status: &str| {
        json!({
            "type": type_, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T11:00:00Z",
        })
    };
    let holds = if reason == "Published" { "True" } else { "False" };
    let all = [condition("Ready", holds), condition("Stalled", "True")];
    object["status"]["conditions"] = all[..1 + usize::from(stalled)].into();
    object
}

fn ready(names: &[&str]) -> Value {
    names.iter().map(|name| listed(name, "Ready", "Beating", "")).collect()
}

fn mirrored(endpoints: &[(&str, bool)], port: i32) -> Value {
    let mut slice = slice("greeter-m", "endpointslicemirroring-controller.k8s.io", endpoints);
    slice["ports"][0]["port"] = port.into();
    slice
}

/// The Endpoints of the store, as a person has written them.
fn by_hand(store: &mut Store, port: i32) {
    let endpoints = store.endpoints.get_mut(&Key::new("shop", "greeter")).unwrap();
    endpoints.metadata.labels = None;
    for subset in endpoints.subsets.iter_mut().flatten() {
        subset.ports.iter_mut().flatten().for_each(|it| it.port = port);
    }
}

#[test]
fn the_end_of_a_dry_run_removes_the_dead_and_adds_those_that_beat() {
    let mut instances = ready(&["vm-1", "vm-3"]);
    let dead = listed("vm-2", "Expired", "TTLPassed", "");
    instances.as_array_mut().unwrap().push(dead);
    let leases = [
        lease("vm-1", "192.0.2.11", 1),
        lease("vm-2", "192.0.2.12", 99),
        lease("vm-3", "192.0.2.13", 1),
    ];
    let slices =
        [slice("greeter-a", "beatkeeper.dev", &[("192.0.2.11", true), ("192.0.2.12", true)])];
    let all = ["192.0.2.11", "192.0.2.12"];
    let store = store(unready(instances, "DryRun", false), &leases, &slices, &all);
    let rows = "\
@@ -1,2 +1,2 @@
 192.0.2.11  http 8080/TCP  ready
-192.0.2.12  http 8080/TCP  ready
+192.0.2.13  http 8080/TCP  ready
";
    assert_eq!(
        drawn(&store),
        format!(
            "--- published/EndpointSlice/shop/greeter\n+++ planned/EndpointSlice/shop/greeter\n{rows}\
             --- published/Endpoints/shop/greeter\n+++ planned/Endpoints/shop/greeter\n{rows}"
        )
    );
    let short: Vec<_> = short(&difference(&store)).iter().map(|line| line.plain()).collect();
    assert_eq!(
        short,
        [
            "EndpointSlice of Service shop/greeter: 1 added, 1 removed",
            "Endpoints of Service shop/greeter: 1 added, 1 removed"
        ]
    );
}

/// The changes of a Service without Endpoints whose operator says this, and whether they assume something.
fn without_endpoints(slices: &[Value], reason: &str, message: &str) -> (Vec<String>, bool) {
    let leases = [lease("vm-1", "192.0.2.11", 1), lease("vm-2", "192.0.2.12", 1)];
    let object = saying(ready(&["vm-1", "vm-2"]), reason, message, false);
    let mut store = store(object, &leases, slices, &[]);
    store.endpoints.clear();
    let difference = difference(&store);
    let lines = short(&difference).iter().map(|line| line.plain()).collect();
    (lines, difference.assumes_endpoints)
}

const OF_SLICES: &str = "EndpointSlice of Service shop/greeter";
const OF_ENDPOINTS: &str = "Endpoints of Service shop/greeter";

#[test]
fn in_a_dry_run_endpoints_are_planned_unless_its_status_says_that_none_are_written() {
    let writes = "dry run: 2 of 2 instances would be ready; would create slice greeter-*: +2";
    let writes_none = format!("{writes}; {NO_ENDPOINTS}; nothing is published or removed");
    let both = |count: usize| {
        vec![format!("{OF_SLICES}: {count} added"), format!("{OF_ENDPOINTS}: 2 added")]
    };
    assert_eq!(without_endpoints(&[], "DryRun", writes), (both(2), false));
    let slices_alone = vec![format!("{OF_SLICES}: 2 added")];
    assert_eq!(without_endpoints(&[], "DryRun", &writes_none), (slices_alone, false));
    // The status counts more than what was published before it, and what others publish says nothing.
    for manager in ["beatkeeper.dev", "staff"] {
        let one = [slice("greeter-a", manager, &[("192.0.2.11", true)])];
        assert_eq!(without_endpoints(&one, "DryRun", writes), (both(1), false), "{manager}");
        let slices_alone = vec![format!("{OF_SLICES}: 1 added")];
        assert_eq!(without_endpoints(&one, "DryRun", &writes_none), (slices_alone, false));
    }
}

#[test]
fn without_a_dry_run_what_is_published_tells_whether_endpoints_are_and_otherwise_it_is_assumed() {
    let slices_alone = |count: usize| vec![format!("{OF_SLICES}: {count} added")];
    let one = [slice("greeter-a", "beatkeeper.dev", &[("192.0.2.11", true)])];
    assert_eq!(without_endpoints(&one, "WriteFailed", "no"), (slices_alone(1), false));
    // One that publishes has had its chance.
    assert_eq!(without_endpoints(&[], "Published", "yes"), (slices_alone(2), false));
    let both = vec![format!("{OF_SLICES}: 2 added"), format!("{OF_ENDPOINTS}: 2 added")];
    assert_eq!(without_endpoints(&[], "WriteFailed", "no"), (both, true));
}

#[test]
fn endpoints_that_are_taken_over_are_deleted_if_the_operator_writes_none() {
    let mut adopted = listed("adopted/192.0.2.21", "Ready", "Adopted", "");
    adopted["addresses"] = json!(["192.0.2.21"]);
    let message = format!("dry run: would take over endpoints greeter; {NO_ENDPOINTS}");
    let object = saying(json!([adopted]), "DryRun", &message, false);
    let slices = [mirrored(&[("192.0.2.21", true)], 9001)];
    let mut store = store(object, &[], &slices, &["192.0.2.21"]);
    by_hand(&mut store, 9001);
    let lines: Vec<_> = short(&difference(&store)).iter().map(|line| line.plain()).collect();
    assert_eq!(lines, [format!("{OF_ENDPOINTS}: 1 removed")]);
}

#[test]
fn nothing_is_shown_of_a_registration_that_publishes_what_it_decided() {
    let slices =
        [slice("greeter-a", "beatkeeper.dev", &[("192.0.2.11", true), ("192.0.2.12", false)])];
    let instances = json!([
        listed("vm-1", "Ready", "Beating", ""),
        listed("vm-2", "NotReady", "HealthFailing", "")
    ]);
    let leases = [lease("vm-1", "192.0.2.11", 1), lease("vm-2", "192.0.2.12", 1)];
    let mut store = store(registration("greeter", instances), &leases, &slices, &["192.0.2.11"]);
    let endpoints = store.endpoints.get_mut(&Key::new("shop", "greeter")).unwrap();
    let subset = &mut endpoints.subsets.as_mut().unwrap()[0];
    subset.not_ready_addresses = serde_json::from_value(json!([{ "ip": "192.0.2.12" }])).unwrap();
    assert_eq!(drawn(&store), "");
    // Without Endpoints its operator writes none.
    store.endpoints.clear();
    assert_eq!(drawn(&store), "");
}

#[test]
fn hand_written_addresses_stay_with_their_ports_and_readiness_when_they_are_taken_over() {
    let instances = json!([
        listed("adopted/192.0.2.21", "Ready", "Adopted", ""),
        listed("adopted/192.0.2.22", "NotReady", "Adopted", ""),
        listed("vm-1", "Ready", "Beating", ""),
    ]);
    let instances = instances.as_array().unwrap().iter().cloned().map(|mut listed| {
        if let Some(address) = listed["name"].as_str().unwrap().strip_prefix("adopted/") {
            listed["addresses"] = json!([address]);
        }
        listed
    });
    let slices = [mirrored(&[("192.0.2.21", true), ("192.0.2.22", false)], 9001)];
    let object = unready(instances.collect(), "DryRun", false);
    let mut store = store(object, &[lease("vm-1", "192.0.2.11", 1)], &slices, &["192.0.2.21"]);
    by_hand(&mut store, 9001);
    assert_eq!(
        drawn(&store),
        "\
--- published/EndpointSlice/shop/greeter
+++ planned/EndpointSlice/shop/greeter
@@ -1,2 +1,3 @@
+192.0.2.11  http 8080/TCP  ready
 192.0.2.21  http 9001/TCP  ready
 192.0.2.22  http 9001/TCP  not ready
--- published/Endpoints/shop/greeter
+++ planned/Endpoints/shop/greeter
@@ -1,1 +1,3 @@
+192.0.2.11  http 8080/TCP  ready
 192.0.2.21  http 9001/TCP  ready
+192.0.2.22  http 9001/TCP  not ready
"
    );
}

#[test]
fn a_stalled_registration_adds_nothing_and_leaves_what_others_publish() {
    let mut instances = ready(&["vm-2"]);
    let waits = listed("vm-1", "Waiting", "NotPublished", "decided to be Ready, but not published");
    instances.as_array_mut().unwrap().insert(0, waits);
    instances.as_array_mut().unwrap().push(listed("vm-3", "Expired", "TTLPassed", ""));
    let leases = [
        lease("vm-1", "192.0.2.11", 1),
        lease("vm-2", "192.0.2.12", 1),
        lease("vm-3", "192.0.2.13", 99),
    ];
    let slices = [
        slice("greeter-a", "beatkeeper.dev", &[("192.0.2.12", true), ("192.0.2.13", true)]),
        slice("by-hand", "staff", &[("192.0.2.66", true)]),
    ];
    let mut store =
        store(unready(instances, "ServedByOthers", true), &leases, &slices, &["192.0.2.66"]);
    by_hand(&mut store, 8080);
    assert_eq!(
        drawn(&store),
        "\
--- published/EndpointSlice/shop/greeter
+++ planned/EndpointSlice/shop/greeter
@@ -1,3 +1,2 @@
 192.0.2.12  http 8080/TCP  ready
-192.0.2.13  http 8080/TCP  ready
 192.0.2.66  http 8080/TCP  ready
"
    );
}

#[test]
fn rows_that_stay_are_shown_only_around_those_that_change() {
    let names: Vec<String> = (10..40).map(|n| format!("vm-{n}")).collect();
    let leases: Vec<Value> =
        (10..40).map(|n| lease(&format!("vm-{n}"), &format!("192.0.2.{n}"), 1)).collect();
    let addresses: Vec<String> = (10..40).map(|n| format!("192.0.2.{n}")).collect();
    let published: Vec<(&str, bool)> = addresses[1..].iter().map(|it| (&**it, true)).collect();
    let mut instances = ready(&names.iter().map(String::as_str).collect::<Vec<_>>());
    instances[19]["state"] = "Draining".into();
    let slices = [slice("greeter-a", "beatkeeper.dev", &published)];
    let mut store = store(unready(instances, "DryRun", false), &leases, &slices, &[]);
    store.endpoints.clear();
    let text = drawn(&store);
    assert!(
        text.starts_with(
            "--- published/EndpointSlice/shop/greeter\n+++ planned/EndpointSlice/shop/greeter\n\
             @@ -1,3 +1,4 @@\n+192.0.2.10  http 8080/TCP  ready\n 192.0.2.11  http 8080/TCP  ready\n"
        ),
        "{text}"
    );
    assert!(
        text.contains(
            "@@ -16,7 +17,7 @@\n 192.0.2.26  http 8080/TCP  ready\n 192.0.2.27  http 8080/TCP  ready\n \
             192.0.2.28  http 8080/TCP  ready\n-192.0.2.29  http 8080/TCP  ready\n+192.0.2.29  http 8080/TCP  draining\n"
        ),
        "{text}"
    );
}

#[test]
fn the_ports_of_a_pod_and_of_a_declared_instance_are_their_own() {
    let mut object = unready(ready(&["db", "web-1"]), "DryRun", false);
    object["spec"]["ports"][0]["targetPort"] = "web".into();
    object["spec"]["instances"] = json!([
        { "name": "db", "addresses": ["192.0.2.30"], "ports": [{ "name": "http", "port": 5432 }] },
    ]);
    let mut in_pod = lease("web-1", "", 1);
    in_pod["metadata"]["annotations"] = json!({ "beatkeeper.dev/pod-uid": "p" });
    in_pod["metadata"]["ownerReferences"] =
        json!([{ "apiVersion": "v1", "kind": "Pod", "name": "web-1", "uid": "p" }]);
    let mut store = store(object, &[lease("db", "192.0.2.30", 1), in_pod], &[], &[]);
    let pod = json!({
        "metadata": { "name": "web-1", "namespace": "shop", "uid": "p" },
        "spec": { "containers": [{ "name": "web", "ports": [{ "name": "web", "containerPort": 8443 }] }] },
        "status": {
            "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }],
            "conditions": [{ "type": "ContainersReady", "status": "True" }],
        },
    });
    let pod = PodView::of(&serde_json::from_value(pod).unwrap());
    store.pods.insert(Key::new("shop", "web-1"), pod);
    let text = drawn(&store);
    assert!(
        text.contains(
            "@@ -0,0 +1,2 @@\n+10.0.0.1    http 8443/TCP  ready\n+192.0.2.30  http 5432/TCP  ready\n"
        ),
        "{text}"
    );
}

#[test]
fn an_instance_beyond_the_hundred_that_a_status_lists_is_judged_by_its_lease() {
    let mut object = unready(json!([]), "DryRun", false);
    object["status"]["total"] = 101.into();
    let mut failing = lease("vm-2", "192.0.2.12", 1);
    failing["metadata"]["annotations"]["beatkeeper.dev/health"] = "Failing".into();
    let leases = [lease("vm-1", "192.0.2.11", 1), failing, lease("vm-3", "192.0.2.13", 30)];
    let text = drawn(&store(object, &leases, &[], &[]));
    assert!(
        text.contains(
            "@@ -0,0 +1,2 @@\n+192.0.2.11  http 8080/TCP  ready\n+192.0.2.12  http 8080/TCP  not ready\n"
        ),
        "{text}"
    );
}

#[test]
fn a_service_that_does_not_exist_would_be_created_with_the_ports_of_the_spec() {
    let mut store = store(unready(json!([]), "DryRun", false), &[], &[], &[]);
    store.services.clear();
    assert_eq!(
        drawn(&store),
        "\
--- published/Service/shop/greeter
+++ planned/Service/shop/greeter
@@ -0,0 +1,1 @@
+port  http 80/TCP  → 8080
"
    );
}

#[test]
fn without_the_selector_pods_that_do_not_beat_yet_stay_as_the_cluster_published_them() {
    let waits =
        listed("vm-1", "Waiting", "NotPublished", "decided to be NotReady, but not published");
    let mut failing = lease("vm-1", "10.0.0.1", 1);
    failing["metadata"]["annotations"]["beatkeeper.dev/health"] = "Failing".into();
    let by_cluster = [("10.0.0.1", true), ("10.0.0.2", true), ("10.0.0.3", false)];
    let slices = [slice("greeter-c", "endpointslice-controller.k8s.io", &by_cluster)];
    let object = unready(json!([waits]), "ServiceHasSelector", true);
    let mut store = store(object, &[failing], &slices, &["10.0.0.1", "10.0.0.2"]);
    let service = store.services.get_mut(&Key::new("shop", "greeter")).unwrap();
    let selector = [("app".to_owned(), "web".to_owned())].into();
    service.spec.as_mut().unwrap().selector = Some(selector);
    by_hand(&mut store, 8080);
    assert_eq!(drawn(&store), "", "as long as the Service has its selector, nothing changes");
    let object = store.registrations.values().next().unwrap();
    let view = assemble::registration(&store, object, now());
    let difference = Difference::of(&store, object, &view, Assuming::SelectorRemoved, now());
    let text: String = unified(&difference).iter().map(|line| line.plain() + "\n").collect();
    assert!(
        text.starts_with(
            "\
--- published/EndpointSlice/shop/greeter
+++ planned/EndpointSlice/shop/greeter
@@ -1,3 +1,3 @@
-10.0.0.1  http 8080/TCP  ready
+10.0.0.1  http 8080/TCP  not ready
 10.0.0.2  http 8080/TCP  ready
 10.0.0.3  http 8080/TCP  not ready
"
        ),
        "{text}"
    );
}

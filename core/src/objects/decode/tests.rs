use beatkeeper_api::ServiceRegistration;
use k8s_openapi::{
    api::{
        core::v1::{Endpoints, Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    serde::de::DeserializeOwned,
};
use kube::core::PartialObjectMeta;

use super::{examples, *};
use crate::objects::{
    heartbeat::HeartbeatLease, pod::PodView, registration::Registration, service::ServiceView,
    spec_problem::SpecProblem,
};

fn whole<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).expect("the type of the whole")
}

fn lenient<K: Decode>(object: &Value) -> K {
    read(object.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal<K: Decode>(object: &Value) -> Unreadable {
    match read::<K>(object.to_string().as_bytes()) {
        Ok(_) => panic!("it is read: {object}"),
        Err(unreadable) => *unreadable,
    }
}

#[test]
fn all_that_is_looked_at_is_kept() {
    let (pod, service) = (examples::pod(), examples::service());
    assert_eq!(PodView::of(&lenient::<Pod>(&pod)), PodView::of(&whole(pod)));
    assert_eq!(ServiceView::of(&lenient::<Service>(&service)), ServiceView::of(&whole(service)));
    let registration = examples::registration();
    let (read, known): (ServiceRegistration, ServiceRegistration) =
        (lenient(&registration), whole(registration));
    assert_eq!((&read.spec, &read.status), (&known.spec, &known.status));
    let [read, known] = [read, known].map(|it| format!("{:?}", Registration::validate(&it)));
    assert_eq!(read, known);
}

#[test]
fn a_read_that_replaces_an_object_as_a_whole_loses_no_field() {
    let without_history = |mut metadata: ObjectMeta| {
        metadata.managed_fields = None;
        // The API server ignores both fields in an update.
        metadata.creation_timestamp = None;
        metadata
    };
    let (read, mut known): (EndpointSlice, EndpointSlice) =
        (lenient(&examples::slice()), whole(examples::slice()));
    known.metadata = without_history(known.metadata);
    assert_eq!(read, known);
    let (read, mut known): (Endpoints, Endpoints) =
        (lenient(&examples::endpoints()), whole(examples::endpoints()));
    known.metadata = without_history(known.metadata);
    assert_eq!(read, known);
}

#[test]
fn what_is_not_used_is_not_kept() {
    let read: Pod = lenient(&examples::pod());
    assert!(!format!("{read:?}").contains("hunter2"), "no environment of a Pod");
    let annotations = read.metadata.annotations.expect("ours");
    assert_eq!(annotations.keys().collect::<Vec<_>>(), ["beatkeeper.dev/note"]);
    let lease: HeartbeatLease = lenient(&examples::lease());
    assert_eq!(lease.metadata.labels.expect("ours").len(), 1);
    assert_eq!(lease.metadata.managed_fields, None);
}

#[test]
fn of_a_node_the_zone_is_kept() {
    let read: PartialObjectMeta<Node> = lenient(&examples::node());
    let labels = read.metadata.labels.expect("one that is used");
    assert_eq!(labels.keys().collect::<Vec<_>>(), ["topology.kubernetes.io/zone"]);
}

#[test]
fn an_object_that_cannot_be_read_is_known_by_its_name_and_says_what_of_it_is_wrong() {
    let mut slice = examples::slice();
    slice["ports"][0]["port"] = json!(99_999_999_999_i64);
    let unreadable = refusal::<EndpointSlice>(&slice);
    assert_eq!(unreadable.key, Key::new("shop", "greeter-x"));
    assert_eq!(unreadable.version, Version(41));
    assert_eq!(unreadable.service.as_deref(), Some("greeter"));
    assert_eq!(unreadable.owner.as_deref(), Some("greeter"));
    let text = unreadable.to_string();
    assert!(text.starts_with("EndpointSlice shop/greeter-x cannot be read: ports: "), "{text}");

    // Our annotation names the owner as well, unless it was copied from another namespace.
    slice["metadata"]["ownerReferences"] = json!(null);
    for (mark, owner) in [
        ("shop:greeter/uid", Some("greeter")),
        ("greeter/uid", Some("greeter")),
        ("another:greeter/uid", None),
        ("?", None),
    ] {
        slice["metadata"]["annotations"]["beatkeeper.dev/owned-by"] = json!(mark);
        assert_eq!(refusal::<EndpointSlice>(&slice).owner.as_deref(), owner, "{mark}");
    }

    let mut pod = examples::pod();
    pod["spec"]["nodeName"] = json!({ "password": "hunter2" });
    let text = refusal::<Pod>(&pod).to_string();
    assert!(text.starts_with("Pod shop/web-1 cannot be read: spec.nodeName: "), "{text}");
    pod["spec"]["nodeName"] = json!("node-1");
    pod["status"]["podIP"] = json!(["hunter2"]);
    pod["metadata"]["labels"] = json!("hunter2");
    let text = refusal::<Pod>(&pod).to_string();
    assert!(text.contains("metadata.labels: ") && !text.contains("hunter2"), "{text}");

    for nothing in [json!(null), json!([]), json!("x"), json!(5), json!({ "metadata": 5 })] {
        assert_eq!(refusal::<Pod>(&nothing).key, Key::new("", ""), "{nothing}");
        assert_eq!(refusal::<HeartbeatLease>(&nothing).key, Key::new("", ""), "{nothing}");
        assert_eq!(refusal::<ServiceRegistration>(&nothing).key, Key::new("", ""), "{nothing}");
        refusal::<PartialObjectMeta<Node>>(&nothing);
    }
}

#[test]
fn a_time_that_no_type_holds_is_the_latest_there_is() {
    let mut registration = examples::registration();
    registration["metadata"]["creationTimestamp"] = json!("9999-12-31T23:59:59Z");
    let read: ServiceRegistration = lenient(&registration);
    let created = read.metadata.creation_timestamp.expect("a time").0;
    // With this time, the registration is never the older of two for one Service.
    assert!(created > "9999-01-01T00:00:00Z".parse().expect("a time"));
    registration["metadata"]["creationTimestamp"] = json!(null);
    let read: ServiceRegistration = lenient(&registration);
    assert_eq!(read.metadata.creation_timestamp, None);
}

#[test]
fn a_status_keeps_the_adopted_instances_whatever_else_is_in_it() {
    let mut registration = examples::registration();
    let status = &mut registration["status"];
    status["lastChangeTime"] = json!("9999-12-31T23:59:59Z");
    status["ready"] = json!(99_999_999_999_i64);
    status["adopted"][0]["since"] = json!("9999-12-31T23:59:59Z");
    status["adopted"][0]["ports"] = json!([{ "name": "http", "port": "x" }]);
    let read: ServiceRegistration = lenient(&registration);
    let status = read.status.as_ref().expect("a status");
    assert_eq!(status.adopted.len(), 1);
    assert_eq!(status.adopted[0].address, "192.0.2.9");
    assert_eq!(status.instances.len(), 1);
    assert_eq!(Registration::validate(&read).problems, [], "it is still sound");
    registration["status"]["adopted"][0]["address"] = json!(7);
    let read: ServiceRegistration = lenient(&registration);
    let unreadable = "an entry of status.adopted cannot be read".to_owned();
    assert_eq!(Registration::validate(&read).problems, [SpecProblem::Unreadable(unreadable)]);
}

//! The operator decides nothing from an object that it cannot read. A registration that needs the object leaves
//! everything as it is, and all others continue.

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use serde_json::{Value, json};

use crate::{
    cluster_cache::{ClusterCache, watched::Watched},
    inputs::{Inputs, preconditions, snapshot},
    objects::{
        decode::{self, Unreadable, examples},
        registration::Registration,
    },
    plan::build::{self, PlanSettings},
    vocabulary::{key::Key, version::Version},
};

fn registration(name: &str) -> ServiceRegistration {
    let mut object = examples::registration();
    object["metadata"]["name"] = json!(name);
    object["metadata"]["uid"] = json!(if name == "greeter" { "sreg-uid" } else { name });
    object["spec"]["serviceName"] = json!(name);
    decode::read(object.to_string().as_bytes()).expect("a registration")
}

/// Makes a used part of an object unreadable.
fn broken(mut object: Value, pointer: &str) -> Unreadable {
    *object.pointer_mut(pointer).expect("it is there") = json!(-99_999_999_999_i64);
    object["metadata"]["resourceVersion"] = json!("50");
    let json = object.to_string();
    let read = match object["kind"].as_str().expect("a kind") {
        "EndpointSlice" => decode::read::<EndpointSlice>(json.as_bytes()).err(),
        "Endpoints" => decode::read::<Endpoints>(json.as_bytes()).err(),
        _ => decode::read::<Service>(json.as_bytes()).err(),
    };
    *read.expect("it cannot be read")
}

fn put<K: Watched + decode::Decode>(cluster: &mut ClusterCache, object: &Value) {
    cluster.put(decode::read::<K>(object.to_string().as_bytes()).expect("an object"));
}

/// Returns the reason of the stall, and the number of writes for an empty list of instances, with which a known
/// and readable slice would be deleted.
fn outcome(cluster: &ClusterCache, name: &str) -> (Option<&'static str>, usize) {
    let registration = Registration::validate(&registration(name));
    let snapshot = snapshot::take(&registration, cluster);
    let service = snapshot.service.clone();
    let stall = preconditions::stall(&registration, service.as_deref(), &snapshot.conflicts);
    let reason = stall.as_ref().map(|stall| stall.reason.as_str());
    let inputs = Inputs::new(snapshot, service, stall);
    let style = PlanSettings { publish_endpoints: true, max_endpoints_per_slice: 100 };
    let wall = "2026-11-22T10:00:00Z".parse().expect("a time");
    let plan = build::build(&registration, &inputs, &[], style, wall);
    (reason, plan.writes().count())
}

/// Two registrations with a Service and a slice each.
fn cluster() -> ClusterCache {
    let mut cluster = ClusterCache::default();
    for name in ["greeter", "other"] {
        cluster.put_registration(&registration(name));
        let mut service = examples::service();
        service["metadata"]["name"] = json!(name);
        service["spec"]["selector"] = json!(null);
        put::<Service>(&mut cluster, &service);
        let mut slice = examples::slice();
        slice["metadata"]["name"] = json!(format!("{name}-a"));
        slice["metadata"]["labels"]["kubernetes.io/service-name"] = json!(name);
        let owner = &mut slice["metadata"]["ownerReferences"][0];
        owner["name"] = json!(name);
        owner["uid"] = json!(if name == "greeter" { "sreg-uid" } else { name });
        put::<EndpointSlice>(&mut cluster, &slice);
    }
    cluster
}

#[test]
fn a_slice_that_cannot_be_read_stops_every_write_for_its_registration_and_for_no_other() {
    let mut cluster = cluster();
    let (sound, writes) = outcome(&cluster, "greeter");
    assert!(sound.is_none() && writes > 0, "otherwise the dead leave");
    let strange = broken(examples::slice(), "/ports/0/port");
    let concerned = cluster.put_unreadable::<EndpointSlice>(strange);
    assert!(concerned.contains(&Key::new("shop", "greeter")), "{concerned:?}");
    assert_eq!(outcome(&cluster, "greeter"), (Some("ObjectUnreadable"), 0));
    assert_eq!(outcome(&cluster, "other"), (None, writes));
    // Without its label, the owner reference shows the registration of a slice. With neither, the slice may
    // belong to any registration of the namespace.
    for (label, owner, others) in [(true, false, false), (false, true, false), (false, false, true)]
    {
        let mut strange = broken(examples::slice(), "/ports/0/port");
        strange.service = strange.service.filter(|_| label);
        strange.owner = strange.owner.filter(|_| owner);
        cluster.put_unreadable::<EndpointSlice>(strange);
        assert_eq!(outcome(&cluster, "greeter"), (Some("ObjectUnreadable"), 0));
        assert_eq!(outcome(&cluster, "other").0.is_some(), others);
    }
    cluster.remove_named::<EndpointSlice>(&Key::new("shop", "greeter-x"), Version(51));
    assert_eq!(outcome(&cluster, "greeter"), (None, writes), "it is deleted");
}

#[test]
fn a_service_or_endpoints_that_cannot_be_read_stop_every_write_until_they_can_be() {
    let mut known = cluster();
    let sound = outcome(&known, "greeter");
    let service = || broken(examples::service(), "/spec/ports/0/port");
    known.put_unreadable::<Service>(service());
    assert_eq!(outcome(&known, "greeter"), sound, "as it was known it counts");
    known.put_unreadable::<Endpoints>(broken(examples::endpoints(), "/subsets/0/ports/0/port"));
    assert_eq!(outcome(&known, "greeter"), (Some("ObjectUnreadable"), 0));
    let mut mended = examples::endpoints();
    mended["metadata"]["resourceVersion"] = json!("51");
    put::<Endpoints>(&mut known, &mended);
    assert_eq!(outcome(&known, "greeter").0, None);

    let mut unknown = ClusterCache::default();
    unknown.put_registration(&registration("greeter"));
    let concerned = unknown.put_unreadable::<Service>(service());
    assert_eq!(concerned, [Key::new("shop", "greeter")]);
    assert_eq!(
        outcome(&unknown, "greeter"),
        (Some("ObjectUnreadable"), 0),
        "none is made beside it"
    );
}

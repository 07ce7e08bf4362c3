//! The operator decides nothing from an object that it cannot read. A registration that needs the object leaves
//! everything as it is, and all others continue.

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use serde_json::{Value, json};

use crate::{
    gather,
    heartbeat::Version,
    index::Key,
    planning::{self, Style},
    reading::{self, Unreadable, examples},
    registration::Registration,
    stage::Stage,
    standing,
    world::{Watched, World},
};

fn registration(name: &str) -> ServiceRegistration {
    let mut object = examples::registration();
    object["metadata"]["name"] = json!(name);
    object["metadata"]["uid"] = json!(if name == "greeter" { "sreg-uid" } else { name });
    object["spec"]["serviceName"] = json!(name);
    reading::read(object.to_string().as_bytes()).expect("a registration")
}

/// Makes a used part of an object unreadable.
fn broken(mut object: Value, pointer: &str) -> Unreadable {
    *object.pointer_mut(pointer).expect("it is there") = json!(-99_999_999_999_i64);
    object["metadata"]["resourceVersion"] = json!("50");
    let json = object.to_string();
    let read = match object["kind"].as_str().expect("a kind") {
        "EndpointSlice" => reading::read::<EndpointSlice>(json.as_bytes()).err(),
        "Endpoints" => reading::read::<Endpoints>(json.as_bytes()).err(),
        _ => reading::read::<Service>(json.as_bytes()).err(),
    };
    *read.expect("it cannot be read")
}

fn put<K: Watched + reading::Readable>(world: &mut World, object: &Value) {
    world.put(reading::read::<K>(object.to_string().as_bytes()).expect("an object"));
}

/// Returns the reason of the stall, and the number of writes for an empty list of instances, with which a known
/// and readable slice would be deleted.
fn outcome(world: &World, name: &str) -> (Option<&'static str>, usize) {
    let registration = Registration::validate(&registration(name));
    let gathered = gather::surroundings(&registration, world);
    let service = gathered.service.clone();
    let stall = standing::stall(&registration, service.as_deref(), &gathered.neighbours);
    let reason = stall.as_ref().map(|stall| stall.reason);
    let stage = Stage::new(gathered, service, stall);
    let style = Style { publish_endpoints: true, max_endpoints_per_slice: 100 };
    let wall = "2026-11-22T10:00:00Z".parse().expect("a time");
    let plan = planning::draw_up(&registration, &stage, &[], style, wall);
    (reason, plan.writes().count())
}

/// Two registrations with a Service and a slice each.
fn world() -> World {
    let mut world = World::default();
    for name in ["greeter", "other"] {
        world.put_registration(&registration(name));
        let mut service = examples::service();
        service["metadata"]["name"] = json!(name);
        service["spec"]["selector"] = json!(null);
        put::<Service>(&mut world, &service);
        let mut slice = examples::slice();
        slice["metadata"]["name"] = json!(format!("{name}-a"));
        slice["metadata"]["labels"]["kubernetes.io/service-name"] = json!(name);
        let owner = &mut slice["metadata"]["ownerReferences"][0];
        owner["name"] = json!(name);
        owner["uid"] = json!(if name == "greeter" { "sreg-uid" } else { name });
        put::<EndpointSlice>(&mut world, &slice);
    }
    world
}

#[test]
fn a_slice_that_cannot_be_read_stops_every_write_for_its_registration_and_for_no_other() {
    let mut world = world();
    let (sound, writes) = outcome(&world, "greeter");
    assert!(sound.is_none() && writes > 0, "otherwise the dead leave");
    let strange = broken(examples::slice(), "/ports/0/port");
    let concerned = world.put_unreadable::<EndpointSlice>(strange);
    assert!(concerned.contains(&Key::new("shop", "greeter")), "{concerned:?}");
    assert_eq!(outcome(&world, "greeter"), (Some("ObjectUnreadable"), 0));
    assert_eq!(outcome(&world, "other"), (None, writes));
    // Without its label, the owner reference shows the registration of a slice. With neither, the slice may
    // belong to any registration of the namespace.
    for (label, owner, others) in [(true, false, false), (false, true, false), (false, false, true)]
    {
        let mut strange = broken(examples::slice(), "/ports/0/port");
        strange.service = strange.service.filter(|_| label);
        strange.owner = strange.owner.filter(|_| owner);
        world.put_unreadable::<EndpointSlice>(strange);
        assert_eq!(outcome(&world, "greeter"), (Some("ObjectUnreadable"), 0));
        assert_eq!(outcome(&world, "other").0.is_some(), others);
    }
    world.remove_named::<EndpointSlice>(&Key::new("shop", "greeter-x"), Version(51));
    assert_eq!(outcome(&world, "greeter"), (None, writes), "it is deleted");
}

#[test]
fn a_service_or_endpoints_that_cannot_be_read_stop_every_write_until_they_can_be() {
    let mut known = world();
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

    let mut unknown = World::default();
    unknown.put_registration(&registration("greeter"));
    let concerned = unknown.put_unreadable::<Service>(service());
    assert_eq!(concerned, [Key::new("shop", "greeter")]);
    assert_eq!(
        outcome(&unknown, "greeter"),
        (Some("ObjectUnreadable"), 0),
        "none is made beside it"
    );
}

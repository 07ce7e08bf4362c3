//! Tests that all other objects of a list or events of a watch are read correctly, whatever one of them contains.

use beatkeeper_api::ServiceRegistration;
use futures::io::Cursor as Bytes;
use k8s_openapi::api::{
    core::v1::{Endpoints, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::core::PartialObjectMeta;
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Value, json};

use super::*;
use beatkeeper_core::objects::heartbeat::{Heartbeat, HeartbeatLease};

// The example objects of the core's tests.
#[path = "../../../core/src/objects/decode/examples.rs"]
mod examples;

/// JSON that is nested more deeply than a recursive parser accepts.
fn nested(levels: usize) -> String {
    format!("{}1{}", "{\"f:a\":".repeat(levels), "}".repeat(levels))
}

/// Stands for [`nested`] until the text is written, because a value with such nesting cannot be built.
const NESTED: &str = "(nested)";

fn text_of(value: &Value) -> String {
    value.to_string().replace(&format!("\"{NESTED}\""), &nested(2000))
}

/// Values that no type can hold, or that have the wrong type.
fn strange() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!("9999-12-31T23:59:59Z")),
        Just(json!("10000-01-01T00:00:00Z")),
        Just(json!("-0001-01-01T00:00:00Z")),
        Just(json!("not a time")),
        Just(json!(99_999_999_999_i64)),
        Just(json!(-1)),
        Just(json!(1.5e300)),
        Just(json!(u64::MAX)),
        Just(json!(true)),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null, 1, "a", {}])),
        Just(json!("x".repeat(100_000))),
        Just(json!(NESTED)),
        Just(json!([{ "manager": "m", "time": "9999-12-31T23:59:59Z", "fieldsV1": NESTED }])),
        any::<String>().prop_map(Value::from),
    ]
}

/// The JSON pointers of all places in a value.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let place = format!("{at}/{}", escaped(name));
                places(inner, &place, all);
                all.push(place);
            }
        }
        Value::Array(list) => {
            for (position, inner) in list.iter().enumerate() {
                let place = format!("{at}/{position}");
                places(inner, &place, all);
                all.push(place);
            }
        }
        _ => {}
    }
}

fn mutated(object: &Value, mutations: &[(Index, Value)]) -> Value {
    let mut object = object.clone();
    for (place, value) in mutations {
        let mut all = Vec::new();
        places(&object, "", &mut all);
        if let Some(place) = (!all.is_empty()).then(|| place.get(&all)) {
            *object.pointer_mut(place).expect("it is there") = value.clone();
        }
    }
    object
}

fn named(object: &Value, number: usize) -> Value {
    let mut object = object.clone();
    object["metadata"]["name"] = json!(format!("object-{number}"));
    object["metadata"]["resourceVersion"] = json!((100 + number).to_string());
    object
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(future)
}

/// Everything that a list reports, until it ends.
fn listed<K: Decode>(text: &str) -> Vec<Decoded<K>> {
    let body = Box::pin(Bytes::new(text.as_bytes().to_vec()));
    let mut page = Page::<K>::of(body, 500);
    run(async {
        let mut all = Vec::new();
        while let Some(object) = page.next().await.expect("a list that can be read") {
            all.push(object);
        }
        let end = page.end().expect("an end");
        assert_eq!((end.version.as_deref(), end.next), (Some("1000"), None));
        all
    })
}

/// Everything that a watch reports, until it ends.
fn watched<K: Decode>(text: &str) -> (Vec<Event<Decoded<K>>>, String) {
    let body: Body = Box::pin(Bytes::new(text.as_bytes().to_vec()));
    run(async {
        let mut all = Vec::new();
        let mut state = State::Watching(body, Vec::new(), "7".to_owned());
        loop {
            let State::Watching(body, line, version) = state else { panic!("it lists again") };
            let (event, next) = watching::<K>(body, line, version).await;
            all.extend(event.transpose().expect("no error"));
            if let State::ToWatch(version) = next {
                return (all, version);
            }
            state = next;
        }
    })
}

fn alone<K: Decode>(object: &Value) -> K {
    decode::read(text_of(object).as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

/// Puts one strange object among normal ones, and checks that the others are read.
fn costs_itself_only<K: Decode>(
    object: &Value,
    strange: &Value,
    show: impl Fn(&K) -> String,
) -> Result<(), TestCaseError> {
    let [first, third] = [0, 2].map(|number| named(object, number));
    let kind = "the kind of a list";
    let list = json!({
        "kind": kind, "metadata": { "resourceVersion": "1000" }, "items": [first, strange, third],
    });
    let all = listed::<K>(&text_of(&list));
    prop_assert_eq!(all.len(), 3);
    let sound = |read: &Decoded<K>| read.as_ref().map(&show).map_err(ToString::to_string);
    for (read, object) in [(&all[0], &first), (&all[2], &third)] {
        prop_assert_eq!(sound(read), Ok(show(&alone::<K>(object))));
    }
    let event = |kind: &str, object: &Value| {
        format!("{}\n", text_of(&json!({ "type": kind, "object": object })))
    };
    let bookmark = event("BOOKMARK", &json!({ "metadata": { "resourceVersion": "900" } }));
    let text = event("ADDED", &first)
        + &event("MODIFIED", strange)
        + &event("DELETED", strange)
        + &event("SOMETHING", strange)
        + &event("MODIFIED", &third)
        + &bookmark;
    let (all, version) = watched::<K>(&text);
    prop_assert_eq!(version, "900");
    prop_assert_eq!(all.len(), 4);
    for (event, object) in [(&all[0], &first), (&all[3], &third)] {
        let Event::Apply(read) = event else { panic!("no change") };
        prop_assert_eq!(sound(read), Ok(show(&alone::<K>(object))));
    }
    Ok(())
}

fn debug<K: std::fmt::Debug>(object: &K) -> String {
    format!("{object:?}")
}

fn beat(lease: &HeartbeatLease) -> String {
    debug(&Heartbeat::read(lease))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn one_strange_object_of_any_kind_costs_itself_only(
        mutations in vec((any::<Index>(), strange()), 1..4),
        nothing in prop::option::weighted(0.1, strange()),
    ) {
        let strange = |object: &Value| {
            nothing.clone().unwrap_or_else(|| mutated(&named(object, 1), &mutations))
        };
        macro_rules! each {
            ($($example:ident: $kind:ty, $show:expr;)*) => {$(
                let object = examples::$example();
                costs_itself_only::<$kind>(&object, &strange(&object), $show)?;
            )*};
        }
        each! {
            pod: Pod, debug;
            service: Service, debug;
            slice: EndpointSlice, debug;
            endpoints: Endpoints, debug;
            node: PartialObjectMeta<Node>, debug;
            lease: HeartbeatLease, beat;
            registration: ServiceRegistration, debug;
        }
    }
}

#[test]
fn what_is_not_used_makes_no_object_strange() {
    let text = |mut object: Value| {
        object["metadata"]["managedFields"] = json!([
            { "manager": "m", "operation": "Update", "apiVersion": "v1", "time": "9999-12-31T23:59:59Z",
              "fieldsType": "FieldsV1", "fieldsV1": NESTED },
        ]);
        object["metadata"]["deletionTimestamp"] = json!("12026-01-01T00:00:00Z");
        object["metadata"]["selfLink"] = json!(5);
        text_of(&object)
    };
    fn is_read<K: Decode>(text: &str) -> K {
        decode::read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
    }
    let pod: Pod = is_read(&text(examples::pod()));
    assert!(pod.metadata.deletion_timestamp.is_some() && pod.metadata.managed_fields.is_none());
    let service: Service = is_read(&text(examples::service()));
    assert!(service.metadata.deletion_timestamp.is_some());
    is_read::<EndpointSlice>(&text(examples::slice()));
    is_read::<Endpoints>(&text(examples::endpoints()));
    is_read::<PartialObjectMeta<Node>>(&text(examples::node()));
    assert!(Heartbeat::read(&is_read(&text(examples::lease()))).content.deleting);
    let registration: ServiceRegistration = is_read(&text(examples::registration()));
    assert!(registration.metadata.deletion_timestamp.is_some());
}

#[test]
fn a_watch_whose_history_is_gone_lists_anew_whatever_the_api_server_says() {
    let refusals = [
        r#"{"type":"ERROR","object":{"kind":"Status","status":"Failure","code":410,"reason":"Expired"}}"#,
        r#"{"object":{"kind":"Status","code":410},"type":"ERROR"}"#,
        r#"{"type":"ERROR","object":5}"#,
        "no JSON",
    ];
    run(async {
        for refusal in refusals {
            let body: Body = Box::pin(Bytes::new(format!("{refusal}\n").into_bytes()));
            let (event, next) = watching::<Pod>(body, Vec::new(), "7".to_owned()).await;
            assert!(matches!(event, Some(Err(_))), "{refusal}");
            assert!(matches!(next, State::Begin), "{refusal}");
        }
        let busy = r#"{"type":"ERROR","object":{"kind":"Status","code":500,"message":"busy"}}"#;
        let body: Body = Box::pin(Bytes::new(format!("{busy}\n").into_bytes()));
        let (_, next) = watching::<Pod>(body, Vec::new(), "7".to_owned()).await;
        assert!(matches!(next, State::Watching(..)), "any other is tried again");
        let body: Body = Box::pin(Bytes::new(br#"{"type":"ADDED","object":{"#.to_vec()));
        let (event, next) = watching::<Pod>(body, Vec::new(), "7".to_owned()).await;
        assert!(event.is_none() && matches!(next, State::ToWatch(version) if version == "7"));
    });
}

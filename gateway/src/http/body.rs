//! What the body of a request says. Anything but a renewal is refused (G6).

use beatkeeper_api::{
    beats::{BEATS_KIND, BEATS_MAX, BEATS_VERSION, Beats},
    text::plain_cut,
};
use beatkeeper_core::vocabulary::key::Key;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::http::{refusal::Refused, route};

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON: &str = "application/json";

/// The most characters of a field's name that an answer repeats.
const FIELD_MAX: usize = 80;

/// The media type of a header, without its parameters.
fn media_type(header: Option<&str>) -> String {
    header.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn refused_json(error: &serde_json::Error) -> Refused {
    Refused::NoJson(plain_cut(&error.to_string(), FIELD_MAX))
}

/// Whether the body is a beat for this Lease.
///
/// A client with types may send its `apiVersion`, its `kind` and the name of the Lease, if they are right.
///
/// # Errors
/// [`Refused`], with the field that is wrong.
pub fn beat(lease: &Key, content_type: Option<&str>, body: &[u8]) -> Result<(), Refused> {
    if !matches!(&*media_type(content_type), MERGE | STRATEGIC) {
        return Err(Refused::ContentType { expected: MERGE });
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| refused_json(&error))?;
    let Value::Object(fields) = value else { return Err(Refused::NoTime) };
    let mut time = None;
    for (name, value) in &fields {
        match &**name {
            "spec" => time = renew_time(value)?,
            "metadata" => metadata(value, lease)?,
            "apiVersion" => same("apiVersion", value, "coordination.k8s.io/v1")?,
            "kind" => same("kind", value, "Lease")?,
            other => return Err(further("", other)),
        }
    }
    let time = time.ok_or(Refused::NoTime)?;
    if is_micro_time(time) { Ok(()) } else { Err(Refused::BadTime) }
}

fn renew_time(spec: &Value) -> Result<Option<&str>, Refused> {
    let mut time = None;
    for (name, value) in object("spec", spec)? {
        match &**name {
            "renewTime" => time = Some(value.as_str().ok_or(Refused::BadTime)?),
            other => return Err(further("spec.", other)),
        }
    }
    Ok(time)
}

fn metadata(value: &Value, lease: &Key) -> Result<(), Refused> {
    for (name, value) in object("metadata", value)? {
        match &**name {
            "name" => same("metadata.name", value, &lease.name)?,
            "namespace" => same("metadata.namespace", value, &lease.namespace)?,
            other => return Err(further("metadata.", other)),
        }
    }
    Ok(())
}

/// The fields of an object. A patch with null would take the whole field away.
fn object<'a>(field: &'static str, value: &'a Value) -> Result<&'a Map<String, Value>, Refused> {
    value.as_object().ok_or_else(|| Refused::Field { field: format!("{field} that is no object") })
}

fn same(field: &'static str, value: &Value, expected: &str) -> Result<(), Refused> {
    if value.as_str() == Some(expected) {
        return Ok(());
    }
    let found = plain_cut(value.as_str().unwrap_or_default(), FIELD_MAX);
    Err(Refused::Other { field, found, expected: expected.to_owned() })
}

fn further(prefix: &str, name: &str) -> Refused {
    Refused::Field { field: format!("{prefix}{}", plain_cut(name, FIELD_MAX)) }
}

/// Whether the API server would take this time: RFC 3339 with exactly six fractional digits.
fn is_micro_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let zone = bytes.get(26..).unwrap_or_default();
    let has_zone = matches!(zone, [b'Z']) || matches!(zone, [b'+' | b'-', _, _, b':', _, _]);
    let six = bytes.get(20..26).is_some_and(|digits| digits.iter().all(u8::is_ascii_digit));
    bytes.get(10) == Some(&b'T')
        && bytes.get(19) == Some(&b'.')
        && six
        && has_zone
        && text.parse::<Timestamp>().is_ok()
}

/// The Leases of a request with many beats.
///
/// # Errors
/// [`Refused`].
pub fn beats(content_type: Option<&str>, body: &[u8]) -> Result<Vec<Key>, Refused> {
    if media_type(content_type) != JSON {
        return Err(Refused::ContentType { expected: JSON });
    }
    let beats: Beats = serde_json::from_slice(body).map_err(|error| refused_json(&error))?;
    let Beats { api_version, kind, leases } = beats;
    if api_version != BEATS_VERSION || kind != BEATS_KIND {
        return Err(Refused::NoBeats(format!("it has to be {BEATS_VERSION} {BEATS_KIND}")));
    }
    if leases.is_empty() {
        return Err(Refused::NoBeats("it has no Leases".to_owned()));
    }
    if leases.len() > BEATS_MAX {
        return Err(Refused::TooMany { found: leases.len(), max: BEATS_MAX });
    }
    let keys = leases.into_iter().map(|lease| {
        let text = || format!("{}/{}", plain_cut(&lease.namespace, 63), plain_cut(&lease.name, 63));
        let is_lease = route::is_lease(&lease.namespace, &lease.name);
        let bad = || Refused::NoBeats(format!("no Lease can be named {}", text()));
        if is_lease { Ok(Key::new(lease.namespace, lease.name)) } else { Err(bad()) }
    });
    keys.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const TIME: &str = "2026-01-02T03:04:05.678901Z";

    fn lease() -> Key {
        Key::new("shop", "greeter.vm-1")
    }

    fn check(body: &[u8]) -> Result<(), Refused> {
        beat(&lease(), Some("application/merge-patch+json; charset=utf-8"), body)
    }

    /// JSON of any shape, with the names that count among others.
    fn any_json() -> impl Strategy<Value = Value> {
        let text = prop_oneof![Just(TIME.to_owned()), ".{0,12}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        let name = prop_oneof![
            Just("spec".to_owned()),
            Just("renewTime".to_owned()),
            Just("metadata".to_owned()),
            Just("name".to_owned()),
            ".{0,8}",
        ];
        leaf.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((name.clone(), inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_are_they_are_a_renewal_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(check(&bytes).is_err());
            let _ = beats(Some("application/json"), &bytes);
        }

        #[test]
        fn json_that_is_accepted_renews_and_does_nothing_else(value in any_json()) {
            if check(value.to_string().as_bytes()).is_ok() {
                let mut rest = value;
                let spec = rest.as_object_mut().and_then(|it| it.remove("spec")).expect("a spec");
                prop_assert_eq!(spec.as_object().map(Map::len), Some(1));
                prop_assert!(is_micro_time(spec["renewTime"].as_str().expect("a time")));
                prop_assert!(rest.as_object().is_some_and(|it| it.keys().all(|it| it == "metadata")));
            }
        }

        #[test]
        fn a_time_that_the_gateway_takes_is_one_for_the_api_server(text in "[0-9TZ:.+-]{20,32}") {
            if is_micro_time(&text) {
                let time: Result<k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime, _> =
                    serde_json::from_value(text.clone().into());
                prop_assert!(time.is_ok(), "{text}");
            }
        }
    }

    #[test]
    fn deep_json_is_refused_and_not_followed() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(check(deep.as_bytes()), Err(Refused::NoJson(_))));
    }

    #[test]
    fn a_name_with_control_characters_is_not_repeated_as_it_is() {
        let body = json!({ "spec": { "renewTime": TIME, "a\n\u{1b}[31m": 1 } }).to_string();
        let Err(refused) = check(body.as_bytes()) else { panic!("it was accepted") };
        assert!(!refused.to_string().contains(char::is_control), "{refused:?}");
    }
}

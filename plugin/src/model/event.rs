//! What the events of a registration tell of an instance.

use beatkeeper_api::text::plain;
use beatkeeper_core::objects::decode::Keep::{self, All, Fields};
use jiff::Timestamp;
use serde_json::Value;

/// The fields that are kept of an event.
pub const KEEP: Keep = {
    const REFERENCE: Keep = Fields(&[("kind", All), ("namespace", All), ("name", All)]);
    Fields(&[
        ("metadata", Fields(&[("creationTimestamp", All)])),
        ("involvedObject", REFERENCE),
        ("related", REFERENCE),
        ("reason", All),
        ("message", All),
        ("type", All),
        ("eventTime", All),
        ("firstTimestamp", All),
        ("lastTimestamp", All),
        ("count", All),
        ("series", Fields(&[("count", All), ("lastObservedTime", All)])),
    ])
};

/// An event of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// When it happened last.
    pub at: Timestamp,
    /// Its reason, as one word.
    pub reason: String,
    /// What it says.
    pub note: String,
    /// Whether it is a warning.
    pub warning: bool,
    /// How often it happened.
    pub count: u64,
    /// The name of the Lease that it is related to.
    pub lease: Option<String>,
}

impl Transition {
    /// Reads an event, if it is about this registration.
    pub fn read(event: &Value, registration: &str) -> Option<Self> {
        let involved = &event["involvedObject"];
        if involved["kind"] != "ServiceRegistration" || involved["name"] != registration {
            return None;
        }
        let text = |value: &Value| plain(value.as_str().unwrap_or_default()).into_owned();
        let time = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
        let series = &event["series"];
        let times = [&series["lastObservedTime"], &event["lastTimestamp"], &event["eventTime"]];
        let first = [&event["firstTimestamp"], &event["metadata"]["creationTimestamp"]];
        Some(Self {
            at: times.into_iter().chain(first).find_map(time)?,
            reason: text(&event["reason"]),
            note: text(&event["message"]),
            warning: event["type"] == "Warning",
            count: series["count"].as_u64().or(event["count"].as_u64()).unwrap_or(1),
            lease: event["related"]["name"].as_str().map(str::to_owned),
        })
    }

    /// Whether it is about an instance. An event about many names three of them.
    pub fn is_about(&self, instance: &str, lease: &str) -> bool {
        let names = self.note.split(": ").next().unwrap_or_default();
        let names = names.strip_prefix("dry run").unwrap_or(names);
        let names = names.split(" and ").next().unwrap_or_default();
        self.lease.as_deref() == Some(lease) || names.split(", ").any(|name| name == instance)
    }

    /// How many instances it is about, and the name of the first of them.
    pub fn instances(&self) -> (usize, Option<&str>) {
        let note = self.note.strip_prefix("dry run: ").unwrap_or(&self.note);
        let Some((names, _)) = note.split_once(": ") else { return (1, None) };
        let (named, more) = match names.split_once(" and ") {
            Some((named, more)) => (named, more.strip_suffix(" more").and_then(|n| n.parse().ok())),
            None => (names, None),
        };
        let more: usize = more.unwrap_or(0);
        (named.split(", ").count().saturating_add(more), named.split(", ").next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(note: &str) -> Value {
        json!({
            "involvedObject": { "kind": "ServiceRegistration", "name": "greeter" },
            "related": { "kind": "Lease", "name": "greeter.vm-1" },
            "reason": "InstanceExpired", "message": note, "type": "Warning",
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "series": { "count": 3, "lastObservedTime": "2026-01-01T00:05:00.000000Z" },
        })
    }

    #[test]
    fn an_event_tells_when_it_happened_last_and_of_whom() {
        let read = Transition::read(&event("vm-1, vm-2 and 3 more: its ttl passed"), "greeter");
        let read = read.unwrap();
        assert_eq!(read.at, "2026-01-01T00:05:00Z".parse().unwrap());
        assert_eq!((read.count, read.warning), (3, true));
        assert!(read.is_about("vm-1", "greeter.vm-1"));
        assert!(read.is_about("vm-2", "greeter.vm-2"));
        assert!(!read.is_about("vm-3", "greeter.vm-3"));
        assert_eq!(read.instances(), (5, Some("vm-1")));
    }

    #[test]
    fn an_event_of_another_object_is_none_of_its() {
        assert_eq!(Transition::read(&event("vm-1: x"), "other"), None);
    }
}

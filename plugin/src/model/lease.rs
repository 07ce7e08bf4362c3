//! What is read of a heartbeat Lease.

use std::fmt;

use beatkeeper_api::{
    heartbeat::{self, REGISTRATION_LABEL},
    text::plain_cut,
};
use beatkeeper_core::{
    objects::{
        decode::{
            Decode,
            Keep::{self, All, Each, Entries, Fields, Time},
            Lenient,
        },
        heartbeat::{Heartbeat, HeartbeatLease},
    },
    vocabulary::key::Key,
};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::beat::Beat;

/// How much of the app's description of its version is kept, in characters.
const VERSION_MAX: usize = 64;

/// The part of `managedFields` from which [`written`] reads.
pub(super) const RENEWALS: Keep = Each(&Fields(&[
    ("time", All),
    ("fieldsV1", Fields(&[("f:spec", Fields(&[("f:renewTime", All)]))])),
]));

/// A heartbeat Lease, read as the operator reads it, with the moment of its last beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenLease {
    /// Namespace and name.
    pub key: Key,
    /// What the operator reads.
    pub heartbeat: Heartbeat,
    /// The last beat; `None` if there was none.
    pub beat: Option<Beat>,
    /// `spec.renewTime` as it is written.
    pub renew_time: Option<String>,
    /// When the Lease was created.
    pub created: Option<Timestamp>,
    /// The version of the app.
    pub version: Option<String>,
    /// Which process claims the Lease.
    pub incarnation: Option<String>,
}

impl Decode for SeenLease {
    const KIND: &'static str = "Lease";
    const KEEP: Keep = Fields(&[
        (
            "metadata",
            Fields(&[
                ("name", All),
                ("namespace", All),
                ("uid", All),
                ("resourceVersion", All),
                ("labels", Entries(|name| name == REGISTRATION_LABEL)),
                ("annotations", Entries(|name| name.starts_with("beatkeeper.dev/"))),
                (
                    "ownerReferences",
                    Each(&Fields(&[
                        ("apiVersion", All),
                        ("kind", All),
                        ("name", All),
                        ("uid", All),
                        ("controller", All),
                    ])),
                ),
                ("creationTimestamp", All),
                ("deletionTimestamp", Time),
                ("managedFields", RENEWALS),
            ]),
        ),
        (
            "spec",
            Fields(&[("holderIdentity", All), ("renewTime", All), ("leaseDurationSeconds", All)]),
        ),
    ]);

    fn of(kept: &Value) -> Result<Self, serde_json::Error> {
        let lease = HeartbeatLease::of(kept)?;
        let heartbeat = Heartbeat::read(&lease);
        let metadata = &lease.metadata;
        let renew_time = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_deref());
        let renewed = renew_time.and_then(|text| text.parse().ok());
        let has_beaten = heartbeat.token.renewed.is_some();
        let annotation = |name: &str| {
            let value = metadata.annotations.as_ref()?.get(name)?;
            Some(plain_cut(value, VERSION_MAX))
        };
        Ok(Self {
            key: Key::of(metadata),
            beat: has_beaten.then(|| Beat::of(renewed, written(kept))).flatten(),
            renew_time: renew_time.map(|text| plain_cut(text, VERSION_MAX)),
            created: metadata.creation_timestamp.as_ref().map(|created| created.0),
            version: annotation(heartbeat::VERSION_ANNOTATION),
            incarnation: annotation(heartbeat::INCARNATION_ANNOTATION),
            heartbeat,
        })
    }
}

/// When the API server last saw a manager write `spec.renewTime`.
pub(super) fn written(kept: &Value) -> Option<Timestamp> {
    let entries = kept["metadata"]["managedFields"].as_array()?;
    let beats =
        entries.iter().filter(|entry| !entry["fieldsV1"]["f:spec"]["f:renewTime"].is_null());
    beats.filter_map(|entry| entry["time"].as_str()?.parse().ok()).max()
}

impl<'de> Deserialize<'de> for SeenLease {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Lenient::deserialize(deserializer).map(|Lenient(lease)| lease)
    }
}

impl SeenLease {
    /// Whether another state of the Lease differs only in its beat.
    pub fn differs_only_in_beat(&self, other: &Self) -> bool {
        let Self { key, heartbeat, beat: _, renew_time: _, created: _, version, incarnation } =
            self;
        *key == other.key
            && heartbeat.content == other.heartbeat.content
            && heartbeat.registration == other.heartbeat.registration
            && heartbeat.token.uid == other.heartbeat.token.uid
            && heartbeat.token.renewed.is_some() == other.heartbeat.token.renewed.is_some()
            && *version == other.version
            && *incarnation == other.incarnation
    }
}

impl fmt::Display for SeenLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease {}", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beatkeeper_core::objects::decode;
    use serde_json::json;

    fn read(value: Value) -> SeenLease {
        decode::read(value.to_string().as_bytes()).unwrap()
    }

    fn lease(renew_time: &str, written: &str) -> Value {
        json!({
            "metadata": {
                "name": "greeter.vm-1", "namespace": "shop", "uid": "u",
                "labels": { "beatkeeper.dev/registration": "greeter" },
                "managedFields": [
                    { "manager": "kubectl-annotate", "time": "2026-01-01T00:09:00Z", "fieldsV1": { "f:metadata": {} } },
                    { "manager": "agent", "time": written, "fieldsV1": { "f:spec": { "f:renewTime": {} } } },
                ],
            },
            "spec": { "holderIdentity": "vm-1", "renewTime": renew_time },
        })
    }

    #[test]
    fn the_last_beat_is_when_the_api_server_saw_the_renewal_and_not_another_write() {
        let seen = read(lease("2026-01-01T00:00:05.250000Z", "2026-01-01T00:00:05Z"));
        assert_eq!(seen.beat.unwrap().at, "2026-01-01T00:00:05.25Z".parse().unwrap());
        let wrong = read(lease("2025-12-31T23:00:00.000000Z", "2026-01-01T00:00:05Z"));
        assert_eq!(wrong.beat.unwrap().at, "2026-01-01T00:00:05Z".parse().unwrap());
    }

    #[test]
    fn a_lease_with_times_that_no_type_can_hold_is_read() {
        let seen = read(lease("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59Z"));
        assert_eq!(seen.beat, None);
        assert!(seen.heartbeat.token.renewed.is_some());
        assert_eq!(seen.key, Key::new("shop", "greeter.vm-1"));
    }

    #[test]
    fn a_lease_without_a_beat_has_none_although_its_fields_were_written() {
        let mut given = lease("x", "2026-01-01T00:00:05Z");
        given["spec"]["renewTime"] = Value::Null;
        assert_eq!(read(given).beat, None);
    }

    #[test]
    fn a_beat_alone_is_told_from_any_other_change() {
        let one = read(lease("2026-01-01T00:00:05.250000Z", "2026-01-01T00:00:05Z"));
        let next = lease("2026-01-01T00:00:15.250000Z", "2026-01-01T00:00:15Z");
        assert!(one.differs_only_in_beat(&read(next.clone())));
        let mut failing = next;
        failing["metadata"]["annotations"] = json!({ "beatkeeper.dev/health": "Failing" });
        assert!(!one.differs_only_in_beat(&read(failing)));
    }
}

//! The heartbeat contract: one Lease per instance and registration.
//!
//! A Lease is a heartbeat when it carries [`REGISTRATION_LABEL`]. Its name is
//! `<registration>.<instance>` ([`lease_name`]); a beat is any change of `spec.renewTime`. Whether
//! an instance lives in a Pod is decided by the Lease's owner reference alone. The contract is
//! described for users in `docs/heartbeat.md`.

use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::api::coordination::v1::Lease;

use crate::text::plain_cut;

/// Label of every heartbeat Lease: the name of its registration. Authoritative.
pub const REGISTRATION_LABEL: &str = "beatkeeper.dev/registration";
/// Annotation: what an instance says of itself, one of [`Health`]. Absent means `Passing`.
pub const HEALTH_ANNOTATION: &str = "beatkeeper.dev/health";
/// Annotation: free text of the instance about its health, shown in status and events.
pub const NOTE_ANNOTATION: &str = "beatkeeper.dev/note";
/// Annotation: the addresses of an outside instance that is not declared, separated by commas.
pub const ADDRESSES_ANNOTATION: &str = "beatkeeper.dev/addresses";
/// Annotation: the version of what runs in the instance, in the words of its makers. For readers.
pub const VERSION_ANNOTATION: &str = "beatkeeper.dev/version";
/// Prefix of annotations with what an instance tells of itself to those who look it up: what follows
/// is the key. For readers.
pub const METADATA_PREFIX: &str = "metadata.beatkeeper.dev/";
/// Annotation: which life of the instance claims the Lease, for people: its host and a number.
pub const INCARNATION_ANNOTATION: &str = "beatkeeper.dev/incarnation";
/// Annotation: a further process that claims the same name, and when it said so last.
pub const RIVAL_ANNOTATION: &str = "beatkeeper.dev/rival";
/// Annotation: the uid of the Pod that the instance runs in, as its owner reference says it, too. Backups
/// and restores take owner references away, and keep this.
pub const POD_UID_ANNOTATION: &str = "beatkeeper.dev/pod-uid";
/// Annotation: an operator takes the instance out of the Service; its value is the reason.
pub const CORDONED_ANNOTATION: &str = "beatkeeper.dev/cordoned";
/// Annotation in a gateway's answer to a beat: the ttl of the registration, as [`crate::duration`] writes it.
pub const TTL_ANNOTATION: &str = "beatkeeper.dev/ttl";
/// Annotation in a gateway's answer to a beat: the interval of the registration.
pub const INTERVAL_ANNOTATION: &str = "beatkeeper.dev/interval";

/// Longest instance name, in characters: a Lease name has 253, of which the registration's DNS
/// label takes up to 63 and the dot one.
pub const INSTANCE_NAME_MAX: usize = 189;
/// Longest note that is kept, in characters; the rest is cut off.
pub const NOTE_MAX: usize = 256;

/// What an instance says of itself in [`HEALTH_ANNOTATION`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Health {
    /// Able to serve.
    #[default]
    Passing,
    /// Alive, but not able to serve: published as not ready.
    Failing,
    /// About to leave: serving what it has, wanting nothing new.
    Draining,
}

impl Health {
    /// The value as written in the annotation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "Passing",
            Self::Failing => "Failing",
            Self::Draining => "Draining",
        }
    }
}

impl std::str::FromStr for Health {
    type Err = UnknownHealth;

    fn from_str(text: &str) -> Result<Self, UnknownHealth> {
        [Self::Passing, Self::Failing, Self::Draining]
            .into_iter()
            .find(|health| health.as_str() == text)
            .ok_or_else(|| UnknownHealth(plain_cut(text, 32)))
    }
}

/// A health that the contract does not know.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[error("annotation beatkeeper.dev/health is \"{0}\"; it must be Passing, Failing or Draining")]
pub struct UnknownHealth(String);

/// The name of the Lease by which `instance` beats for `registration`.
pub fn lease_name(registration: &str, instance: &str) -> String {
    format!("{registration}.{instance}")
}

/// The instance that a Lease of this name beats for, if the name agrees with the registration.
pub fn instance_of<'a>(lease_name: &'a str, registration: &str) -> Option<&'a str> {
    let instance = lease_name.strip_prefix(registration)?.strip_prefix('.')?;
    (1..=INSTANCE_NAME_MAX).contains(&instance.len()).then_some(instance)
}

/// Whether a Lease is a heartbeat, and for which registration.
pub fn registration_of(lease: &Lease) -> Option<&str> {
    let labels = lease.metadata.labels.as_ref()?;
    labels.get(REGISTRATION_LABEL).map(String::as_str).filter(|name| !name.is_empty())
}

/// A renewTime with exactly the six fractional digits the API server asks for: it refuses any other
/// number of them.
pub fn renew_time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Of what a renewTime is a multiple, in microseconds: of a second, of a millisecond, or of one.
///
/// A webhook may cut renewTimes to whole seconds or milliseconds. Two times that it cuts to the same one are one beat, and
/// one that is cut is not found again by what was sent. So a writer whose time was stored as another one goes on with
/// multiples of what the stored time is a multiple of: those are stored as they are.
pub fn grain(micros: i64) -> i64 {
    [1_000_000, 1_000].into_iter().find(|grain| micros % grain == 0).unwrap_or(1)
}

/// The next multiple of a [`grain`].
pub fn whole(micros: i64, grain: i64) -> i64 {
    micros.checked_add(grain - 1).map_or(micros, |at| at - at.rem_euclid(grain))
}

/// A beat: the merge patch that renews a Lease.
///
/// The API server takes a patch that changes nothing for a success without an event, so two beats
/// must never carry the same time: the caller sees to that.
pub fn beat_patch(at: Timestamp) -> serde_json::Value {
    serde_json::json!({ "spec": { "renewTime": renew_time(at) } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renew_time_always_has_six_fractional_digits() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_500_000_000, "1970-01-01T00:00:01.500000Z"),
            (1_000_000_999, "1970-01-01T00:00:01.000000Z"),
        ] {
            let at = Timestamp::from_nanosecond(nanos).expect("in range");
            assert_eq!(renew_time(at), text);
        }
    }

    #[test]
    fn a_time_that_was_cut_shows_to_what() {
        for (micros, of) in [(1, 1), (1_000, 1_000), (2_000_000, 1_000_000), (0, 1_000_000)] {
            assert_eq!(grain(micros), of);
        }
        assert_eq!([0, 1, 1_000, 1_001].map(|at| whole(at, 1_000)), [0, 1_000, 1_000, 2_000]);
        assert_eq!(whole(-1, 1_000), 0);
        assert_eq!(whole(i64::MAX, 1_000_000), i64::MAX);
    }

    #[test]
    fn an_instance_is_what_follows_the_registration_and_a_dot() {
        assert_eq!(instance_of("greeter.vm-1", "greeter"), Some("vm-1"));
        assert_eq!(instance_of("greeter.a.b", "greeter"), Some("a.b"));
        for wrong in ["greeter", "greeter.", "greeterx.vm-1", "other.vm-1", ""] {
            assert_eq!(instance_of(wrong, "greeter"), None, "{wrong}");
        }
        assert_eq!(instance_of(&lease_name("g", &"x".repeat(190)), "g"), None);
    }

    #[test]
    fn an_unknown_health_is_named_and_the_known_ones_listed() {
        let error = "passing".parse::<Health>().expect_err("lower case").to_string();
        assert_eq!(
            error,
            "annotation beatkeeper.dev/health is \"passing\"; it must be Passing, Failing or Draining"
        );
    }
}

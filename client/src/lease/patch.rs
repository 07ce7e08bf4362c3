//! The patches by which a process renews its own claim, and no claim of another process.
//!
//! The uid of the Lease and spec.leaseTransitions distinguish a claim from others. Each takeover raises
//! spec.leaseTransitions, on the condition that the version is the one that it read. A beat tests uid,
//! spec.leaseTransitions and the addresses in the patch itself. Once another process has taken the Lease
//! over, the API server refuses the beat, which then keeps nothing alive. The test costs no request.

use beatkeeper_api::heartbeat::{self, ADDRESSES_ANNOTATION, REGISTRATION_LABEL, RIVAL_ANNOTATION};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{health_report::HealthReport, identity::Identity, version::LeaseVersion};

/// A patch of a Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeasePatch {
    /// RFC 7396. A metadata.uid or resourceVersion in it is a precondition: a difference is answered with
    /// 409.
    Merge(Value),
    /// RFC 6902. A test that fails is answered with 422.
    Json(Value),
}

/// What a beat of the holder writes.
#[derive(Debug, Clone, Copy)]
pub struct Beat<'a> {
    /// The new renewTime.
    pub at: Timestamp,
    /// The renewTime that the Lease has if no other process beats for it. `None`: it is not tested.
    pub after: Option<Timestamp>,
    /// leaseDurationSeconds, if it changes.
    pub seconds: Option<i32>,
    /// What the instance says about itself, if it changes.
    pub health_report: Option<&'a HealthReport>,
    /// Whether to remove the note that a rival has left.
    pub forget_rival: bool,
}

/// A beat beside a holder that claims the same.
#[derive(Debug, Clone, Copy)]
pub struct SharedBeat<'a> {
    /// The new renewTime.
    pub at: Timestamp,
    /// Our own renewTime, which the Lease has if the holder has not beaten since. `None`: it is not tested.
    pub after: Option<Timestamp>,
    /// The note about this process to write for people, if any; the Lease must have annotations.
    pub rival: Option<&'a str>,
}

impl Identity {
    /// Returns the beat of the process that holds the Lease.
    pub fn beat_patch(&self, held: &LeaseVersion, beat: &Beat<'_>) -> LeasePatch {
        let mut ops = Ops::default();
        ops.test("/metadata/uid", json!(held.uid));
        if let Some(transitions) = held.transitions {
            ops.test("/spec/leaseTransitions", json!(transitions));
        }
        if let Some(addresses) = self.addresses() {
            ops.test(&annotation(ADDRESSES_ANNOTATION), json!(addresses));
        }
        if beat.health_report.is_some() {
            // Another writer may have set a health since the version that we know. That one stays.
            ops.test("/metadata/resourceVersion", json!(held.version));
        }
        if let Some(after) = beat.after {
            ops.test("/spec/renewTime", json!(heartbeat::renew_time(after)));
        }
        ops.set("/spec/renewTime", json!(heartbeat::renew_time(beat.at)));
        if let Some(seconds) = beat.seconds {
            ops.set("/spec/leaseDurationSeconds", json!(seconds));
        }
        if let Some(health_report) = beat.health_report {
            ops.annotate(health_report.annotations());
        }
        if beat.forget_rival {
            ops.annotate(json!({ RIVAL_ANNOTATION: null }));
        }
        LeasePatch::Json(ops.0.into())
    }

    /// Returns the beat of another process with the same claim. It keeps the instance alive for the holder
    /// too, and says nothing about its health.
    pub fn shared_beat_patch(&self, holder: &LeaseVersion, beat: SharedBeat<'_>) -> LeasePatch {
        let mut ops = Ops::default();
        ops.test("/metadata/uid", json!(holder.uid));
        if let Some(addresses) = self.addresses() {
            ops.test(&annotation(ADDRESSES_ANNOTATION), json!(addresses));
        }
        if let Some(after) = beat.after {
            ops.test("/spec/renewTime", json!(heartbeat::renew_time(after)));
        }
        ops.set("/spec/renewTime", json!(heartbeat::renew_time(beat.at)));
        if let Some(rival) = beat.rival {
            ops.annotate(json!({ RIVAL_ANNOTATION: rival }));
        }
        LeasePatch::Json(ops.0.into())
    }

    /// Returns a patch without a beat: a process that stands by writes a note for people, or removes it.
    pub fn announcement_patch(&self, holder: &LeaseVersion, rival: Option<&str>) -> LeasePatch {
        let annotations = json!({ RIVAL_ANNOTATION: rival });
        LeasePatch::Merge(json!({ "metadata": { "uid": holder.uid, "annotations": annotations } }))
    }

    /// Returns a patch that claims a Lease anew. The Lease is ours, but was changed, or another process beats
    /// under our claim. The reported health stays, no matter which writer set it.
    pub fn reclaim_patch(
        &self,
        held: &LeaseVersion,
        incarnation: &str,
        at: Timestamp,
    ) -> LeasePatch {
        LeasePatch::Merge(json!({
            "metadata": {
                "uid": held.uid,
                "resourceVersion": held.version,
                "labels": { REGISTRATION_LABEL: self.registration },
                "annotations": {
                    ADDRESSES_ANNOTATION: self.addresses(),
                    heartbeat::INCARNATION_ANNOTATION: incarnation,
                },
            },
            "spec": {
                "holderIdentity": self.instance,
                "leaseTransitions": held.next_transition(),
                "renewTime": heartbeat::renew_time(at),
            },
        }))
    }
}

/// Operations of a JSON Patch.
#[derive(Debug, Default)]
struct Ops(Vec<Value>);

impl Ops {
    fn test(&mut self, path: &str, value: Value) {
        self.0.push(json!({ "op": "test", "path": path, "value": value }));
    }

    /// Adds a value, or replaces the existing one.
    fn set(&mut self, path: &str, value: Value) {
        self.0.push(json!({ "op": "add", "path": path, "value": value }));
    }

    /// Sets annotations, and removes those that are null.
    fn annotate(&mut self, annotations: Value) {
        let Value::Object(annotations) = annotations else { return };
        for (name, value) in annotations {
            let path = annotation(&name);
            match value {
                // Only an existing value can be removed, so the patch first sets it.
                Value::Null => {
                    self.set(&path, json!(""));
                    self.0.push(json!({ "op": "remove", "path": path }));
                }
                value => self.set(&path, value),
            }
        }
    }
}

/// The JSON pointer to an annotation (RFC 6901).
pub(crate) fn annotation(name: &str) -> String {
    format!("/metadata/annotations/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::fixtures::{at, identity};
    use beatkeeper_api::heartbeat::Health;

    fn held() -> LeaseVersion {
        LeaseVersion { uid: "u".to_owned(), version: "7".to_owned(), transitions: Some(4) }
    }

    fn beat() -> Beat<'static> {
        Beat {
            at: at(2),
            after: Some(at(1)),
            seconds: None,
            health_report: None,
            forget_rival: false,
        }
    }

    #[test]
    fn a_beat_tests_all_that_its_process_claims_and_writes_one_field() {
        let patch = identity(&["192.0.2.1"]).beat_patch(&held(), &beat());
        assert_eq!(
            patch,
            LeasePatch::Json(json!([
                { "op": "test", "path": "/metadata/uid", "value": "u" },
                { "op": "test", "path": "/spec/leaseTransitions", "value": 4 },
                {
                    "op": "test",
                    "path": "/metadata/annotations/beatkeeper.dev~1addresses",
                    "value": "192.0.2.1",
                },
                { "op": "test", "path": "/spec/renewTime", "value": "1970-01-01T00:00:00.000001Z" },
                { "op": "add", "path": "/spec/renewTime", "value": "1970-01-01T00:00:00.000002Z" },
            ]))
        );
    }

    #[test]
    fn a_word_is_set_and_one_that_is_taken_back_is_removed_whether_it_is_there_or_not() {
        let health_report = HealthReport { health: Health::Failing, ..HealthReport::default() };
        let patch = identity(&[]).beat_patch(
            &held(),
            &Beat { after: None, seconds: Some(9), health_report: Some(&health_report), ..beat() },
        );
        let LeasePatch::Json(Value::Array(ops)) = patch else { panic!("{patch:?}") };
        let version = json!({ "op": "test", "path": "/metadata/resourceVersion", "value": "7" });
        assert_eq!(ops[2], version, "a health that another writer has set since then stays");
        assert_eq!(
            Value::Array(ops[4..].to_vec()),
            json!([
                { "op": "add", "path": "/spec/leaseDurationSeconds", "value": 9 },
                { "op": "add", "path": "/metadata/annotations/beatkeeper.dev~1health", "value": "Failing" },
                { "op": "add", "path": "/metadata/annotations/beatkeeper.dev~1note", "value": "" },
                { "op": "remove", "path": "/metadata/annotations/beatkeeper.dev~1note" },
            ])
        );
    }

    #[test]
    fn a_shared_beat_says_nothing_of_health_and_tests_the_address() {
        let shared = SharedBeat { at: at(2), after: Some(at(1)), rival: Some("b") };
        let patch = identity(&["::1"]).shared_beat_patch(&held(), shared);
        assert_eq!(
            patch,
            LeasePatch::Json(json!([
                { "op": "test", "path": "/metadata/uid", "value": "u" },
                { "op": "test", "path": "/metadata/annotations/beatkeeper.dev~1addresses", "value": "::1" },
                { "op": "test", "path": "/spec/renewTime", "value": "1970-01-01T00:00:00.000001Z" },
                { "op": "add", "path": "/spec/renewTime", "value": "1970-01-01T00:00:00.000002Z" },
                { "op": "add", "path": "/metadata/annotations/beatkeeper.dev~1rival", "value": "b" },
            ]))
        );
    }

    #[test]
    fn to_claim_anew_leaves_what_was_said_of_health_and_a_cordon_alone() {
        let LeasePatch::Merge(patch) = identity(&[]).reclaim_patch(&held(), "vm-a/1", at(2)) else {
            panic!("a merge patch")
        };
        assert_eq!(
            patch["metadata"]["annotations"],
            json!({ "beatkeeper.dev/addresses": null, "beatkeeper.dev/incarnation": "vm-a/1" })
        );
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["spec"]["leaseTransitions"], 5);
    }
}

//! The Lease that an instance creates, and the patch by which it takes over the Lease of an earlier run.

use std::collections::BTreeMap;

use beatkeeper_api::heartbeat;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use serde_json::{Value, json};

use super::{
    existing::Owner,
    health_report::HealthReport,
    identity::{Identity, Location},
    patch::LeasePatch,
    version::LeaseVersion,
};

impl Identity {
    /// All annotations that we write; an annotation that must be absent is `null`.
    fn annotations(&self, health_report: &HealthReport, incarnation: &str) -> Value {
        let mut all = health_report.annotations();
        all[heartbeat::INCARNATION_ANNOTATION] = json!(incarnation);
        all[heartbeat::ADDRESSES_ANNOTATION] = json!(self.addresses());
        all[heartbeat::VERSION_ANNOTATION] = json!(self.version);
        if let Location::Outside(_) = self.home {
            // This annotation would mark the Lease as that of a Pod.
            all[heartbeat::POD_UID_ANNOTATION] = Value::Null;
        }
        for (key, value) in &self.metadata {
            all[format!("{}{key}", heartbeat::METADATA_PREFIX)] = json!(value);
        }
        all
    }

    /// Returns the Lease to create.
    pub fn new_lease(
        &self,
        owner: &Owner,
        lease_duration_seconds: i32,
        health_report: &HealthReport,
        incarnation: &str,
        at: Timestamp,
    ) -> Lease {
        let label = (heartbeat::REGISTRATION_LABEL.to_owned(), self.registration.clone());
        let owner_references = match owner {
            Owner::Outside => None,
            Owner::Pod { name, uid } => Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: name.clone(),
                uid: uid.clone(),
                ..OwnerReference::default()
            }]),
        };
        let pod_uid = match owner {
            Owner::Outside => None,
            Owner::Pod { uid, .. } => Some((heartbeat::POD_UID_ANNOTATION.to_owned(), uid.clone())),
        };
        let annotations: BTreeMap<String, String> = self
            .annotations(health_report, incarnation)
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .chain(pod_uid)
            .collect();
        Lease {
            metadata: ObjectMeta {
                name: Some(self.lease_name()),
                namespace: Some(self.namespace.clone()),
                labels: Some(BTreeMap::from([label])),
                annotations: Some(annotations).filter(|all| !all.is_empty()),
                owner_references,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.instance.clone()),
                lease_duration_seconds: Some(lease_duration_seconds),
                renew_time: Some(MicroTime(at)),
                // Each beat tests this value.
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            }),
        }
    }

    /// The merge patch by which a Lease of an earlier run becomes ours again.
    ///
    /// The patch removes what the earlier run said about itself, except for metadata keys that we do not
    /// know: a process that has just started is not draining any more. It keeps what a person has set: a
    /// cordon outlives the restart of the instance that it keeps out. The version in the patch makes it fail
    /// (409) if the Lease has been created anew by then, or another process has taken it over.
    pub fn take_over_patch(
        &self,
        held: &LeaseVersion,
        lease_duration_seconds: i32,
        health_report: &HealthReport,
        incarnation: &str,
        at: Timestamp,
    ) -> LeasePatch {
        let mut annotations = self.annotations(health_report, incarnation);
        annotations[heartbeat::RIVAL_ANNOTATION] = Value::Null;
        LeasePatch::Merge(json!({
            "metadata": {
                "uid": held.uid,
                "resourceVersion": held.version,
                "labels": { heartbeat::REGISTRATION_LABEL: self.registration },
                "annotations": annotations,
            },
            "spec": {
                "holderIdentity": self.instance,
                "leaseDurationSeconds": lease_duration_seconds,
                "leaseTransitions": held.next_transition(),
                "renewTime": heartbeat::renew_time(at),
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::fixtures::{at, held, lease, outside, pod};
    use beatkeeper_api::heartbeat::Health;

    fn failing() -> HealthReport {
        HealthReport {
            health: Health::Failing,
            note: Some("disk 91 %".to_owned()),
            provisional: false,
        }
    }

    #[test]
    fn a_new_lease_has_every_field_of_the_contract() {
        let identity = Identity {
            home: Location::Outside(vec![
                "192.0.2.1".parse().expect("ip"),
                "::5".parse().expect("ip"),
            ]),
            version: Some("1.4.2".to_owned()),
            metadata: [("shelf".to_owned(), "7".to_owned())].into(),
            ..outside()
        };
        let lease = identity.new_lease(&Owner::Outside, 3, &failing(), "host/1", at(1_500_000));
        assert_eq!(
            serde_json::to_value(lease).expect("JSON"),
            json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {
                    "name": "greeter.vm-1",
                    "namespace": "shop",
                    "labels": { "beatkeeper.dev/registration": "greeter" },
                    "annotations": {
                        "beatkeeper.dev/addresses": "192.0.2.1,::5",
                        "beatkeeper.dev/health": "Failing",
                        "beatkeeper.dev/incarnation": "host/1",
                        "beatkeeper.dev/note": "disk 91 %",
                        "beatkeeper.dev/version": "1.4.2",
                        "metadata.beatkeeper.dev/shelf": "7",
                    },
                },
                "spec": {
                    "holderIdentity": "vm-1",
                    "leaseDurationSeconds": 3,
                    "leaseTransitions": 0,
                    "renewTime": "1970-01-01T00:00:01.500000Z",
                },
            })
        );
    }

    #[test]
    fn a_healthy_instance_has_no_health_annotation() {
        let lease = lease(&Owner::Outside);
        let named = ("beatkeeper.dev/incarnation".to_owned(), "host/1".to_owned());
        assert_eq!(lease.metadata.annotations, Some([named].into()));
        let silent = json!({ "beatkeeper.dev/health": null, "beatkeeper.dev/note": null });
        assert_eq!(HealthReport::default().annotations(), silent);
        let long = HealthReport { note: Some("é".repeat(300)), ..failing() };
        assert_eq!(long.annotations()["beatkeeper.dev/note"], json!("é".repeat(256)));
    }

    #[test]
    fn a_pod_owns_its_lease_by_uid() {
        let owners = serde_json::to_value(lease(&pod("u1")).metadata.owner_references);
        assert_eq!(
            owners.expect("JSON"),
            json!([{ "apiVersion": "v1", "kind": "Pod", "name": "vm-1", "uid": "u1" }])
        );
    }

    #[test]
    fn taking_over_clears_what_the_earlier_life_said_and_leaves_a_cordon_alone() {
        assert_eq!(
            outside().take_over_patch(&held(4), 3, &HealthReport::default(), "host/1", at(0)),
            LeasePatch::Merge(json!({
                "metadata": {
                    "uid": "lease-uid",
                    "resourceVersion": "7",
                    "labels": { "beatkeeper.dev/registration": "greeter" },
                    "annotations": {
                        "beatkeeper.dev/health": null,
                        "beatkeeper.dev/note": null,
                        "beatkeeper.dev/incarnation": "host/1",
                        "beatkeeper.dev/addresses": null,
                        "beatkeeper.dev/version": null,
                        "beatkeeper.dev/pod-uid": null,
                        "beatkeeper.dev/rival": null,
                    },
                },
                "spec": {
                    "holderIdentity": "vm-1",
                    "leaseDurationSeconds": 3,
                    "leaseTransitions": 5,
                    "renewTime": "1970-01-01T00:00:00.000000Z",
                },
            }))
        );
    }
}

//! What other writers have set in our Lease: for example, a person drains an instance, or leaves a note, with
//! kubectl.
//!
//! The API server records which manager last changed which field. A manager that changed renewTime counts as
//! a process that beats. If another manager has changed an annotation of health or note, we must not undo it:
//! it holds until it is removed, or until a process that beats sets it. `beatkeeper agent drain` writes a
//! renewTime as well, but still counts as a person.

use std::collections::BTreeSet;

use beatkeeper_api::heartbeat::{HEALTH_ANNOTATION, NOTE_ANNOTATION};
use k8s_openapi::{
    api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry,
};

use serde_json::Value;

use super::{
    health_report::HealthReport,
    patch::{LeasePatch, annotation},
};

/// The manager name of commands by hand. It differs from the name of a heartbeat loop, so that a loop does not undo
/// such a command.
pub(crate) const ONE_SHOT_MANAGER: &str = "beatkeeper-by-hand";

/// The annotations of a Lease that other writers have set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ForeignFields {
    /// The health annotation.
    pub health: bool,
    /// The note.
    pub note: bool,
}

impl ForeignFields {
    /// Reads them from a Lease.
    pub fn on(lease: &Lease) -> Self {
        Self::beside(lease, &BTreeSet::new())
    }

    /// Does the same for a Lease that more than one process beats for. Managers that were seen to beat count
    /// as processes, even if another one has changed renewTime since.
    pub fn beside(lease: &Lease, seen_to_beat: &BTreeSet<String>) -> Self {
        let last = owners(lease, &["f:spec", "f:renewTime"]);
        let mut beating = last.clone();
        beating.extend(seen_to_beat.iter().map(String::as_str));
        beating.remove(ONE_SHOT_MANAGER);
        let is_anothers = |annotation: &str| {
            let owners =
                owners(lease, &["f:metadata", "f:annotations", &format!("f:{annotation}")]);
            !last.is_empty() && !owners.is_empty() && owners.is_disjoint(&beating)
        };
        Self { health: is_anothers(HEALTH_ANNOTATION), note: is_anothers(NOTE_ANNOTATION) }
    }

    /// Returns the health report that counts as accepted, according to a Lease that was just read. Of the parts that
    /// are ours to set, only those in the Lease count. A store that was restored from a backup has the
    /// earlier parts, and a part that another writer has removed is missing.
    pub fn reported(self, lease: &Lease, before: &HealthReport) -> HealthReport {
        let said = HealthReport::on(lease);
        HealthReport {
            health: if self.health { before.health } else { said.health },
            note: if self.note { before.note.clone() } else { said.note },
            provisional: false,
        }
    }
}

/// The managers that last changed renewTime.
pub(crate) fn beating(lease: &Lease) -> BTreeSet<String> {
    owners(lease, &["f:spec", "f:renewTime"]).into_iter().map(str::to_owned).collect()
}

/// The managers that last changed a field.
fn owners<'a>(lease: &'a Lease, path: &[&str]) -> BTreeSet<&'a str> {
    let fields = lease.metadata.managed_fields.as_deref().unwrap_or_default();
    let owners = fields.iter().filter(|entry| owns(entry, path));
    owners.filter_map(|entry| entry.manager.as_deref()).collect()
}

fn owns(entry: &ManagedFieldsEntry, path: &[&str]) -> bool {
    let Some(fields) = &entry.fields_v1 else { return false };
    path.iter().try_fold(&fields.0, |fields, name| fields.get(name)).is_some()
}

impl LeasePatch {
    /// Returns the same patch without the annotations that belong to other writers.
    #[must_use]
    pub fn without(self, foreign: ForeignFields) -> Self {
        let spared: Vec<&str> =
            [(foreign.health, HEALTH_ANNOTATION), (foreign.note, NOTE_ANNOTATION)]
                .into_iter()
                .filter_map(|(is_anothers, name)| is_anothers.then_some(name))
                .collect();
        match self {
            Self::Merge(mut patch) => {
                if let Some(annotations) = patch["metadata"]["annotations"].as_object_mut() {
                    annotations.retain(|name, _| !spared.contains(&&**name));
                }
                Self::Merge(patch)
            }
            Self::Json(Value::Array(mut ops)) => {
                let paths: Vec<String> = spared.into_iter().map(annotation).collect();
                ops.retain(|op| !paths.iter().any(|path| op["path"] == **path));
                Self::Json(ops.into())
            }
            Self::Json(patch) => Self::Json(patch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beatkeeper_api::heartbeat::Health;
    use serde_json::json;

    fn lease(managers: Value) -> Lease {
        serde_json::from_value(json!({
            "metadata": { "name": "greeter.vm-1", "managedFields": managers },
            "spec": {},
        }))
        .expect("a Lease")
    }

    fn annotations(manager: &str, names: &[&str]) -> Value {
        let fields: serde_json::Map<String, Value> =
            names.iter().map(|name| (format!("f:{name}"), json!({}))).collect();
        json!({
            "manager": manager, "operation": "Update", "apiVersion": "coordination.k8s.io/v1",
            "fieldsType": "FieldsV1", "fieldsV1": { "f:metadata": { "f:annotations": fields } },
        })
    }

    fn beats(manager: &str) -> Value {
        json!({
            "manager": manager, "operation": "Update", "apiVersion": "coordination.k8s.io/v1",
            "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:renewTime": {} } },
        })
    }

    #[test]
    fn an_annotation_set_by_a_writer_that_does_not_beat_is_foreign() {
        let theirs = annotations("kubectl-annotate", &[HEALTH_ANNOTATION]);
        let ours = annotations("beatkeeper-agent", &[NOTE_ANNOTATION]);
        let lease = lease(json!([beats("beatkeeper-agent"), ours, theirs]));
        assert_eq!(ForeignFields::on(&lease), ForeignFields { health: true, note: false });
    }

    #[test]
    fn our_own_annotations_and_those_without_an_owner_are_not_foreign() {
        let ours = annotations("beatkeeper-agent", &[HEALTH_ANNOTATION, NOTE_ANNOTATION]);
        let lease_of_ours = lease(json!([beats("beatkeeper-agent"), ours]));
        assert_eq!(ForeignFields::on(&lease_of_ours), ForeignFields::default());
        let theirs = annotations("kubectl-annotate", &[HEALTH_ANNOTATION]);
        assert_eq!(
            ForeignFields::on(&lease(json!([theirs]))),
            ForeignFields::default(),
            "nothing beats"
        );
        assert_eq!(ForeignFields::on(&Lease::default()), ForeignFields::default());
    }

    #[test]
    fn what_a_person_tells_with_a_beat_of_its_own_is_anothers() {
        let reported = annotations(ONE_SHOT_MANAGER, &[HEALTH_ANNOTATION]);
        let ours = annotations("beatkeeper-agent", &[NOTE_ANNOTATION]);
        let lease_of_a_dead_one = lease(json!([beats(ONE_SHOT_MANAGER), reported, ours]));
        assert!(ForeignFields::on(&lease_of_a_dead_one).health);
    }

    #[test]
    fn annotations_of_a_process_stay_its_own_after_another_has_beaten_beside_it() {
        let theirs = annotations("beatkeeper-client", &[HEALTH_ANNOTATION]);
        let hand = annotations("kubectl-annotate", &[NOTE_ANNOTATION]);
        let both = lease(json!([beats("beatkeeper-agent"), theirs, hand]));
        let holders = ["beatkeeper-client".to_owned()].into();
        assert_eq!(
            ForeignFields::beside(&both, &holders),
            ForeignFields { health: false, note: true }
        );
    }

    #[test]
    fn annotations_that_left_the_lease_are_not_reported() {
        let reported = |health, note: Option<&str>| {
            let note = note.map(str::to_owned);
            HealthReport { health, note, provisional: false }
        };
        let mut put_back = lease(json!([]));
        put_back.metadata.annotations =
            Some([(HEALTH_ANNOTATION.to_owned(), "Draining".to_owned())].into());
        let before = reported(Health::Passing, Some("disk 91 %"));
        let ours = ForeignFields::default().reported(&put_back, &before);
        assert_eq!(ours, reported(Health::Draining, None));
        assert!(!before.same_as(&ours), "so it is said again");
        let theirs = ForeignFields { health: true, note: false }.reported(&put_back, &before);
        assert_eq!(theirs, reported(Health::Passing, None));
    }

    #[test]
    fn a_note_that_is_cut_in_the_lease_is_told() {
        let long = HealthReport { note: Some("x".repeat(300)), ..HealthReport::default() };
        let mut lease = lease(json!([]));
        lease.metadata.annotations = Some([(NOTE_ANNOTATION.to_owned(), "x".repeat(256))].into());
        assert!(long.same_as(&ForeignFields::default().reported(&lease, &HealthReport::default())));
    }

    #[test]
    fn a_patch_does_not_change_foreign_annotations() {
        let foreign = ForeignFields { health: true, note: false };
        let annotations =
            json!({ HEALTH_ANNOTATION: null, NOTE_ANNOTATION: "disk 91 %", "a": "b" });
        let merge = LeasePatch::Merge(json!({ "metadata": { "annotations": annotations } }));
        let spared = json!({ NOTE_ANNOTATION: "disk 91 %", "a": "b" });
        assert_eq!(
            merge.without(foreign),
            LeasePatch::Merge(json!({ "metadata": { "annotations": spared } }))
        );
        let op = |name: &str| json!({ "op": "add", "path": annotation(name), "value": "" });
        let ops = LeasePatch::Json(json!([op(HEALTH_ANNOTATION), op(NOTE_ANNOTATION)]));
        assert_eq!(ops.without(foreign), LeasePatch::Json(json!([op(NOTE_ANNOTATION)])));
    }
}

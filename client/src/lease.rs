//! The Lease of the instance: how it is created, and what to do with one that already exists.

use std::collections::BTreeMap;
use std::net::IpAddr;

use beatkeeper_api::{
    heartbeat::{self, Health},
    text::plain_cut,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use serde_json::{Value, json};

use crate::fence::LeasePatch;

/// The identity of an instance: its registration, its name, its place, and what it says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Namespace of the registration and of the Lease.
    pub namespace: String,
    /// Name of the ServiceRegistration.
    pub registration: String,
    /// Name of the instance.
    pub instance: String,
    /// Where the instance lives.
    pub home: Home,
    /// The version of the app in the instance.
    pub version: Option<String>,
    /// Other data about the instance: annotations under [`heartbeat::METADATA_PREFIX`].
    pub metadata: BTreeMap<String, String>,
}

/// What an instance says about its health, with a note on the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word {
    /// The health of the instance.
    pub health: Health,
    /// The reason; at most [`heartbeat::NOTE_MAX`] characters of it are shown.
    pub note: Option<String>,
    /// Whether no check has had a result yet. Until one has, the Lease keeps the health that an earlier
    /// process wrote a moment ago: a restart of the agent or the client says nothing about the health of the
    /// instance.
    pub provisional: bool,
}

impl Word {
    /// Returns what an earlier process wrote into its Lease, if it still holds. `Draining` does not hold any
    /// more: it was about the end of that process.
    pub fn kept(lease: &Lease) -> Option<Self> {
        let said = |name: &str| lease.metadata.annotations.as_ref()?.get(name);
        let health = match said(heartbeat::HEALTH_ANNOTATION) {
            None => Health::Passing,
            Some(text) => text.parse().ok().filter(|health| *health != Health::Draining)?,
        };
        Some(Self { health, note: said(heartbeat::NOTE_ANNOTATION).cloned(), provisional: false })
    }

    /// Returns what a Lease says. A value that names no health counts as `Failing`, because the operator publishes
    /// such an instance as not ready.
    pub fn on(lease: &Lease) -> Self {
        let said = |name: &str| lease.metadata.annotations.as_ref()?.get(name);
        let health = said(heartbeat::HEALTH_ANNOTATION);
        let health = health.map_or(Health::Passing, |text| text.parse().unwrap_or(Health::Failing));
        Self { health, note: said(heartbeat::NOTE_ANNOTATION).cloned(), provisional: false }
    }

    /// Whether the two words are the same to readers.
    pub fn says_what(&self, other: &Self) -> bool {
        self.annotations() == other.annotations()
    }

    /// The word as annotations; an annotation that must be absent is `null`.
    pub fn annotations(&self) -> Value {
        let health = (self.health != Health::Passing).then(|| self.health.as_str());
        let note = self.note.as_ref();
        let note = note.map(|note| note.chars().take(heartbeat::NOTE_MAX).collect::<String>());
        json!({ heartbeat::HEALTH_ANNOTATION: health, heartbeat::NOTE_ANNOTATION: note })
    }
}

/// Where an instance lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    /// In the Pod of this name; its address is the Pod's.
    Pod(String),
    /// Outside the cluster, at the addresses given here or, if none are given, at those that the registration
    /// declares.
    Outside(Vec<IpAddr>),
}

/// What the owner reference of the Lease says: it alone decides whether an instance belongs to a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A Pod, with the uid that distinguishes it from earlier Pods of the same name.
    Pod {
        /// metadata.name
        name: String,
        /// metadata.uid
        uid: String,
    },
    /// No owner: an outside instance.
    Outside,
}

impl Identity {
    /// Name of the Lease.
    pub fn lease_name(&self) -> String {
        heartbeat::lease_name(&self.registration, &self.instance)
    }

    /// The value of the addresses annotation; `None` if the annotation must be absent.
    pub(crate) fn addresses(&self) -> Option<String> {
        match &self.home {
            Home::Outside(addresses) if !addresses.is_empty() => {
                Some(addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(","))
            }
            Home::Outside(_) | Home::Pod(_) => None,
        }
    }

    /// All annotations that we write; an annotation that must be absent is `null`.
    fn annotations(&self, word: &Word, incarnation: &str) -> Value {
        let mut all = word.annotations();
        all[heartbeat::INCARNATION_ANNOTATION] = json!(incarnation);
        all[heartbeat::ADDRESSES_ANNOTATION] = json!(self.addresses());
        all[heartbeat::VERSION_ANNOTATION] = json!(self.version);
        if let Home::Outside(_) = self.home {
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
        word: &Word,
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
            .annotations(word, incarnation)
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
        held: &Held,
        lease_duration_seconds: i32,
        word: &Word,
        incarnation: &str,
        at: Timestamp,
    ) -> LeasePatch {
        let mut annotations = self.annotations(word, incarnation);
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

    /// Decides what to do with the Lease that already has our name.
    pub fn judge(&self, lease: &Lease, owner: &Owner) -> Existing {
        let mine = || Existing::Ours { held: Held::of(lease), renewed: renewed(lease) };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        // The label may have been removed. A Lease without the label and without our holder belongs to other
        // software: leader election creates Leases of any name.
        if heartbeat::registration_of(lease) != Some(&self.registration)
            && holder != Some(&self.instance)
        {
            return Existing::Occupied(Occupant::Stranger);
        }
        let owners = lease.metadata.owner_references.as_deref().unwrap_or_default();
        let pod = owners.iter().find(|owner| owner.api_version == "v1" && owner.kind == "Pod");
        match (owner, pod) {
            (Owner::Pod { uid: ours, .. }, Some(theirs)) if theirs.uid == *ours => mine(),
            (Owner::Pod { name, .. }, Some(theirs)) if theirs.name == *name => {
                Existing::EarlierPod { uid: Held::of(lease).uid }
            }
            (Owner::Outside, None) if owners.is_empty() => mine(),
            (_, Some(theirs)) => Existing::Occupied(Occupant::pod(&theirs.name)),
            // A backup or a restore has removed the owner of the Lease, and no outside instance has this
            // annotation.
            (Owner::Pod { .. }, None) if owners.is_empty() && was_a_pods(lease) => {
                Existing::EarlierPod { uid: Held::of(lease).uid }
            }
            (_, None) if owners.is_empty() => Existing::Occupied(Occupant::Outside),
            (_, None) => Existing::Occupied(Occupant::Stranger),
        }
    }

    /// Whether a Lease that the API server has just returned is still the one that was claimed, and counts as
    /// a heartbeat.
    pub fn is_ours_still(&self, lease: &Lease, uid: &str) -> bool {
        lease.metadata.uid.as_deref() == Some(uid)
            && heartbeat::registration_of(lease) == Some(&self.registration)
    }
}

/// A Lease that is ours, as the API server last returned it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Its metadata.uid
    pub uid: String,
    /// Its metadata.resourceVersion
    pub version: String,
    /// How often a process has taken the Lease over from another: spec.leaseTransitions.
    pub transitions: Option<i32>,
}

impl Held {
    /// Takes these fields from a Lease.
    pub fn of(lease: &Lease) -> Self {
        Self {
            uid: lease.metadata.uid.clone().unwrap_or_default(),
            version: lease.metadata.resource_version.clone().unwrap_or_default(),
            transitions: lease.spec.as_ref().and_then(|spec| spec.lease_transitions),
        }
    }

    /// The value of spec.leaseTransitions that a process writes when it takes the Lease over.
    pub fn next_transition(&self) -> i32 {
        self.transitions.unwrap_or_default().saturating_add(1)
    }

    /// Whether another process has taken over, or created anew, the Lease that we held.
    pub fn has_passed_to(&self, now: &Self) -> bool {
        self.uid != now.uid || self.transitions < now.transitions
    }
}

/// Whether the annotations of a Lease say that a Pod created it.
fn was_a_pods(lease: &Lease) -> bool {
    let annotations = lease.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(heartbeat::POD_UID_ANNOTATION))
}

/// The renewTime of a Lease.
pub fn renewed(lease: &Lease) -> Option<Timestamp> {
    lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)
}

/// What a Lease that already exists means for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Existing {
    /// The Lease of an earlier run of this same instance: we take it over.
    Ours {
        /// The Lease as it is now.
        held: Held,
        /// The renewTime of the Lease; the next beat must differ from it.
        renewed: Option<Timestamp>,
    },
    /// The Lease of an earlier Pod of the same name: we delete it and create it anew. With its owner
    /// reference the garbage collector would delete the Lease while we beat.
    EarlierPod {
        /// Its metadata.uid
        uid: String,
    },
    /// The Lease of another instance. If two processes beat under one name, neither death would be seen.
    Occupied(Occupant),
}

/// The maximum length of the name of an object, a DNS subdomain.
const NAME_MAX: usize = 253;

/// What has the name that we want.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occupant {
    /// A Pod, named by the owner reference and made safe to print.
    Pod(String),
    /// An instance outside the cluster, while we are a Pod.
    Outside,
    /// An object that is no heartbeat of ours.
    Stranger,
}

impl Occupant {
    /// Makes the name safe to print: the API server accepts any text as the name in an owner reference.
    fn pod(name: &str) -> Self {
        Self::Pod(plain_cut(name, NAME_MAX))
    }
}

impl std::fmt::Display for Occupant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "it belongs to the Pod {name}"),
            Self::Outside => write!(f, "it belongs to an instance outside the cluster"),
            Self::Stranger => write!(f, "it is no heartbeat of this registration"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_microsecond(micros).expect("in range")
    }

    fn outside() -> Identity {
        Identity {
            namespace: "shop".to_owned(),
            registration: "greeter".to_owned(),
            instance: "vm-1".to_owned(),
            home: Home::Outside(vec![]),
            version: None,
            metadata: BTreeMap::new(),
        }
    }

    fn failing() -> Word {
        Word { health: Health::Failing, note: Some("disk 91 %".to_owned()), provisional: false }
    }

    fn pod(uid: &str) -> Owner {
        Owner::Pod { name: "vm-1".to_owned(), uid: uid.to_owned() }
    }

    fn lease(owner: &Owner) -> Lease {
        let mut lease = outside().new_lease(owner, 3, &Word::default(), "host/1", at(1));
        lease.metadata.uid = Some("lease-uid".to_owned());
        lease.metadata.resource_version = Some("7".to_owned());
        lease
    }

    fn held(transitions: i32) -> Held {
        let transitions = Some(transitions);
        Held { uid: "lease-uid".to_owned(), version: "7".to_owned(), transitions }
    }

    fn ours() -> Existing {
        Existing::Ours { held: held(0), renewed: Some(at(1)) }
    }

    #[test]
    fn what_stands_as_the_name_in_an_owner_reference_is_fit_to_be_printed() {
        let mut theirs = lease(&pod("p"));
        let owners = theirs.metadata.owner_references.as_mut().expect("an owner");
        owners[0].name = format!("web\n\u{1b}[2J{}", "x".repeat(1000));
        let Existing::Occupied(Occupant::Pod(name)) = outside().judge(&theirs, &Owner::Outside)
        else {
            panic!("it is another's")
        };
        assert!(name.starts_with("web\\n\\u{1b}[2Jx") && name.ends_with("x…"), "{name}");
        assert_eq!(name.chars().count(), NAME_MAX);
    }

    #[test]
    fn a_new_lease_has_every_field_of_the_contract() {
        let identity = Identity {
            home: Home::Outside(vec!["192.0.2.1".parse().expect("ip"), "::5".parse().expect("ip")]),
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
        assert_eq!(Word::default().annotations(), silent);
        let long = Word { note: Some("é".repeat(300)), ..failing() };
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
            outside().take_over_patch(&held(4), 3, &Word::default(), "host/1", at(0)),
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

    #[test]
    fn a_lease_has_passed_to_another_when_it_was_taken_over_or_made_anew() {
        assert!(!held(4).has_passed_to(&Held { version: "8".to_owned(), ..held(4) }));
        assert!(held(4).has_passed_to(&held(5)));
        assert!(held(4).has_passed_to(&Held { uid: "another".to_owned(), ..held(0) }));
        // A process that writes Leases without the count has not taken the Lease over.
        assert!(!held(4).has_passed_to(&held(0)));
    }

    #[test]
    fn a_restart_takes_its_own_lease_over() {
        assert_eq!(outside().judge(&lease(&Owner::Outside), &Owner::Outside), ours());
        assert_eq!(outside().judge(&lease(&pod("u1")), &pod("u1")), ours());
    }

    #[test]
    fn a_lease_that_lost_its_label_is_known_by_its_holder() {
        let mut lease = lease(&Owner::Outside);
        lease.metadata.labels = None;
        assert_eq!(outside().judge(&lease, &Owner::Outside), ours());
    }

    #[test]
    fn a_pod_replaces_the_lease_of_an_earlier_pod_of_its_name() {
        let existing = outside().judge(&lease(&pod("u1")), &pod("u2"));
        assert_eq!(existing, Existing::EarlierPod { uid: "lease-uid".to_owned() });
    }

    /// This happens when a namespace is restored from a backup.
    #[test]
    fn a_pod_replaces_the_lease_of_its_name_that_has_lost_its_owner() {
        let mut restored = lease(&pod("u1"));
        let says = restored
            .metadata
            .annotations
            .as_ref()
            .map(|all| all["beatkeeper.dev/pod-uid"].as_str());
        assert_eq!(says, Some("u1"));
        restored.metadata.owner_references = None;
        let existing = outside().judge(&restored, &pod("u2"));
        assert_eq!(existing, Existing::EarlierPod { uid: "lease-uid".to_owned() });
        restored.metadata.annotations = None;
        let existing = outside().judge(&restored, &pod("u2"));
        assert_eq!(existing, Existing::Occupied(Occupant::Outside), "it may be a machine's");
    }

    #[test]
    fn a_lease_of_another_owner_is_left_alone() {
        let (mut stranger, mut owned) = (lease(&Owner::Outside), lease(&pod("u1")));
        stranger.metadata.labels = None;
        stranger.spec = None;
        if let Some(owners) = &mut owned.metadata.owner_references {
            owners[0].kind = "ConfigMap".to_owned();
        }
        let other = Owner::Pod { name: "vm-2".to_owned(), uid: "u2".to_owned() };
        for (lease, owner, occupant) in [
            (&lease(&Owner::Outside), &pod("u1"), Occupant::Outside),
            (&lease(&pod("u1")), &Owner::Outside, Occupant::Pod("vm-1".to_owned())),
            (&lease(&pod("u1")), &other, Occupant::Pod("vm-1".to_owned())),
            (&stranger, &Owner::Outside, Occupant::Stranger),
            (&owned, &Owner::Outside, Occupant::Stranger),
        ] {
            assert_eq!(outside().judge(lease, owner), Existing::Occupied(occupant));
        }
    }

    #[test]
    fn a_lease_made_anew_or_without_its_label_is_not_ours_still() {
        let mut lease = lease(&Owner::Outside);
        assert!(outside().is_ours_still(&lease, "lease-uid"));
        assert!(!outside().is_ours_still(&lease, "other-uid"));
        lease.metadata.labels = None;
        assert!(!outside().is_ours_still(&lease, "lease-uid"));
    }
}

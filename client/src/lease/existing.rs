//! What to do with a Lease that already has the name of the instance.

use beatkeeper_api::{heartbeat, text::plain_cut};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;

use super::{
    identity::Identity,
    version::{LeaseVersion, renewed},
};

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
    /// Decides what to do with the Lease that already has our name.
    pub fn classify(&self, lease: &Lease, owner: &Owner) -> Existing {
        let mine = || Existing::Ours { held: LeaseVersion::of(lease), renewed: renewed(lease) };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        // The label may have been removed. A Lease without the label and without our holder belongs to other
        // software: leader election creates Leases of any name.
        if heartbeat::registration_of(lease) != Some(&self.registration)
            && holder != Some(&self.instance)
        {
            return Existing::Occupied(Occupant::Foreign);
        }
        let owners = lease.metadata.owner_references.as_deref().unwrap_or_default();
        let pod = owners.iter().find(|owner| owner.api_version == "v1" && owner.kind == "Pod");
        match (owner, pod) {
            (Owner::Pod { uid: ours, .. }, Some(theirs)) if theirs.uid == *ours => mine(),
            (Owner::Pod { name, .. }, Some(theirs)) if theirs.name == *name => {
                Existing::EarlierPod { uid: LeaseVersion::of(lease).uid }
            }
            (Owner::Outside, None) if owners.is_empty() => mine(),
            (_, Some(theirs)) => Existing::Occupied(Occupant::pod(&theirs.name)),
            // A backup or a restore has removed the owner of the Lease, and no outside instance has this
            // annotation.
            (Owner::Pod { .. }, None) if owners.is_empty() && was_a_pods(lease) => {
                Existing::EarlierPod { uid: LeaseVersion::of(lease).uid }
            }
            (_, None) if owners.is_empty() => Existing::Occupied(Occupant::Outside),
            (_, None) => Existing::Occupied(Occupant::Foreign),
        }
    }

    /// Whether a Lease that the API server has just returned is still the one that was claimed, and counts as
    /// a heartbeat.
    pub fn still_owns(&self, lease: &Lease, uid: &str) -> bool {
        lease.metadata.uid.as_deref() == Some(uid)
            && heartbeat::registration_of(lease) == Some(&self.registration)
    }
}

/// Whether the annotations of a Lease say that a Pod created it.
fn was_a_pods(lease: &Lease) -> bool {
    let annotations = lease.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(heartbeat::POD_UID_ANNOTATION))
}

/// What a Lease that already exists means for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Existing {
    /// The Lease of an earlier run of this same instance: we take it over.
    Ours {
        /// The Lease as it is now.
        held: LeaseVersion,
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
    Foreign,
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
            Self::Foreign => write!(f, "it is no heartbeat of this registration"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::fixtures::{at, held, lease, outside, pod};

    fn ours() -> Existing {
        Existing::Ours { held: held(0), renewed: Some(at(1)) }
    }

    #[test]
    fn what_stands_as_the_name_in_an_owner_reference_is_fit_to_be_printed() {
        let mut theirs = lease(&pod("p"));
        let owners = theirs.metadata.owner_references.as_mut().expect("an owner");
        owners[0].name = format!("web\n\u{1b}[2J{}", "x".repeat(1000));
        let Existing::Occupied(Occupant::Pod(name)) = outside().classify(&theirs, &Owner::Outside)
        else {
            panic!("it is another's")
        };
        assert!(name.starts_with("web\\n\\u{1b}[2Jx") && name.ends_with("x…"), "{name}");
        assert_eq!(name.chars().count(), NAME_MAX);
    }

    #[test]
    fn a_restart_takes_its_own_lease_over() {
        assert_eq!(outside().classify(&lease(&Owner::Outside), &Owner::Outside), ours());
        assert_eq!(outside().classify(&lease(&pod("u1")), &pod("u1")), ours());
    }

    #[test]
    fn a_lease_that_lost_its_label_is_known_by_its_holder() {
        let mut lease = lease(&Owner::Outside);
        lease.metadata.labels = None;
        assert_eq!(outside().classify(&lease, &Owner::Outside), ours());
    }

    #[test]
    fn a_pod_replaces_the_lease_of_an_earlier_pod_of_its_name() {
        let existing = outside().classify(&lease(&pod("u1")), &pod("u2"));
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
        let existing = outside().classify(&restored, &pod("u2"));
        assert_eq!(existing, Existing::EarlierPod { uid: "lease-uid".to_owned() });
        restored.metadata.annotations = None;
        let existing = outside().classify(&restored, &pod("u2"));
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
            (&stranger, &Owner::Outside, Occupant::Foreign),
            (&owned, &Owner::Outside, Occupant::Foreign),
        ] {
            assert_eq!(outside().classify(lease, owner), Existing::Occupied(occupant));
        }
    }

    #[test]
    fn a_lease_made_anew_or_without_its_label_is_not_ours_still() {
        let mut lease = lease(&Owner::Outside);
        assert!(outside().still_owns(&lease, "lease-uid"));
        assert!(!outside().still_owns(&lease, "other-uid"));
        lease.metadata.labels = None;
        assert!(!outside().still_owns(&lease, "lease-uid"));
    }
}

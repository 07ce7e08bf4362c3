//! Who may renew a Lease through a gateway (G6, G7). The gateway has verified the token; this decides what it allows.

use std::sync::Arc;

use crate::{objects::heartbeat::Origin, vocabulary::key::Key};

/// Who beats, as a verified token says it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The name of the user, for instance `system:serviceaccount:shop:default`.
    pub user: Arc<str>,
    /// The Pod that the token is bound to.
    pub pod: Option<BoundPod>,
}

/// The Pod that a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BoundPod {
    /// Its name. A token says it; a gateway does not look it up.
    pub name: Arc<str>,
    /// Its uid.
    pub uid: Arc<str>,
}

/// What an identity may do with a Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    /// It may renew the Lease: its Pod owns it.
    Renews,
    /// The API server has to say whether the user may `patch` this Lease and `register` in its registration.
    NeedsReview,
    /// It may not.
    Refused(Refusal),
}

/// Why an identity may not renew a Lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The ServiceAccount of the token is of another namespace.
    #[error(
        "the token is of {user}, and the Lease is in namespace {namespace}: use a token of a ServiceAccount of \
         that namespace"
    )]
    OtherNamespace {
        /// The user.
        user: Arc<str>,
        /// The namespace of the Lease.
        namespace: String,
    },
    /// Another Pod owns the Lease.
    #[error(
        "Pod {owner} owns Lease {lease}, and the token is bound to {found}: an instance renews its own Lease only"
    )]
    OtherPod {
        /// The name of the Lease.
        lease: String,
        /// The Pod that owns the Lease.
        owner: String,
        /// The Pod of the token, or that there is none.
        found: String,
    },
    /// The user lacks a right.
    #[error(
        "{user} may not {verb} Lease {lease}: grant it, or use a token that is bound to the Pod of the instance"
    )]
    LacksRight {
        /// The user.
        user: Arc<str>,
        /// The verb.
        verb: Arc<str>,
        /// The name of the Lease.
        lease: String,
    },
    /// A reason that a leader of a later version gives, in its words (G12).
    #[error("{0}")]
    Other(Arc<str>),
}

/// What an identity may do with this Lease, whose instance has this origin.
///
/// A Pod may renew the Lease that it owns by uid, so a Pod that replaced another one under its name may not renew the
/// other one's Lease. No other Pod may renew that Lease, whatever its rights.
pub fn right(identity: &Identity, lease: &Key, origin: &Origin) -> Right {
    if let Origin::Pod { name, uid } = origin {
        return match &identity.pod {
            Some(pod) if *pod.uid == **uid && *pod.name == **name => {
                in_namespace(identity, lease).map_or(Right::Renews, Right::Refused)
            }
            other => Right::Refused(Refusal::OtherPod {
                lease: lease.name.clone(),
                owner: name.clone(),
                found: other
                    .as_ref()
                    .map_or_else(|| "no Pod".to_owned(), |pod| format!("Pod {}", pod.name)),
            }),
        };
    }
    Right::NeedsReview
}

/// Whether the token is of the namespace of the Lease. The owner that a Lease names is written by its author, who can
/// name a Pod of any namespace.
fn in_namespace(identity: &Identity, lease: &Key) -> Option<Refusal> {
    let account = identity.user.strip_prefix("system:serviceaccount:");
    let namespace = account.and_then(|account| account.split(':').next());
    (namespace != Some(&*lease.namespace)).then(|| Refusal::OtherNamespace {
        user: identity.user.clone(),
        namespace: lease.namespace.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(namespace: &str, name: &str, uid: &str) -> Identity {
        Identity {
            user: format!("system:serviceaccount:{namespace}:default").into(),
            pod: Some(BoundPod { name: name.into(), uid: uid.into() }),
        }
    }

    fn of_pod(identity: &Identity) -> Right {
        let origin = Origin::Pod { name: "a".into(), uid: "1".into() };
        right(identity, &Key::new("shop", "reg.a"), &origin)
    }

    #[test]
    fn a_pod_renews_the_lease_that_it_owns() {
        assert_eq!(of_pod(&bound("shop", "a", "1")), Right::Renews);
    }

    #[test]
    fn another_pod_does_not_even_under_the_same_name() {
        for other in [bound("shop", "b", "2"), bound("shop", "a", "2"), bound("shop", "b", "1")] {
            assert!(
                matches!(of_pod(&other), Right::Refused(Refusal::OtherPod { .. })),
                "{other:?}"
            );
        }
    }

    #[test]
    fn a_lease_that_names_a_pod_of_another_namespace_as_its_owner_is_not_renewed_by_it() {
        let other = bound("bank", "a", "1");
        assert!(matches!(of_pod(&other), Right::Refused(Refusal::OtherNamespace { .. })));
        let no_account = Identity { user: "alice".into(), ..bound("shop", "a", "1") };
        assert!(matches!(of_pod(&no_account), Right::Refused(Refusal::OtherNamespace { .. })));
    }

    #[test]
    fn a_user_without_a_pod_does_not_renew_the_lease_of_a_pod() {
        let user = Identity { user: "system:serviceaccount:shop:admin".into(), pod: None };
        let Right::Refused(why) = of_pod(&user) else { panic!("it was not refused") };
        assert!(why.to_string().contains("bound to no Pod"), "{why}");
    }

    #[test]
    fn the_lease_of_an_outside_instance_needs_a_review() {
        let user = Identity { user: "vm".into(), pod: None };
        let right = right(&user, &Key::new("shop", "reg.vm"), &Origin::Outside);
        assert_eq!(right, Right::NeedsReview);
    }
}

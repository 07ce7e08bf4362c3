//! Which version of a Lease was seen, and how versions follow each other.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;

/// A Lease that is ours, as the API server last returned it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseVersion {
    /// Its metadata.uid
    pub uid: String,
    /// Its metadata.resourceVersion
    pub version: String,
    /// How often a process has taken the Lease over from another: spec.leaseTransitions.
    pub transitions: Option<i32>,
}

impl LeaseVersion {
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
    pub fn was_taken_over_by(&self, now: &Self) -> bool {
        self.uid != now.uid || self.transitions < now.transitions
    }
}

/// The renewTime of a Lease.
pub fn renewed(lease: &Lease) -> Option<Timestamp> {
    lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(transitions: i32) -> LeaseVersion {
        let transitions = Some(transitions);
        LeaseVersion { uid: "lease-uid".to_owned(), version: "7".to_owned(), transitions }
    }

    #[test]
    fn a_lease_has_passed_to_another_when_it_was_taken_over_or_made_anew() {
        assert!(!held(4).was_taken_over_by(&LeaseVersion { version: "8".to_owned(), ..held(4) }));
        assert!(held(4).was_taken_over_by(&held(5)));
        assert!(held(4).was_taken_over_by(&LeaseVersion { uid: "another".to_owned(), ..held(0) }));
        // A process that writes Leases without the count has not taken the Lease over.
        assert!(!held(4).was_taken_over_by(&held(0)));
    }
}

//! What has happened to a Lease, when the API server has refused a beat.

use k8s_openapi::api::coordination::v1::Lease;

use super::{
    identity::Identity,
    renew_times::WrittenTimes,
    rival::claims_the_same,
    version::{LeaseVersion, renewed},
};

/// What has happened to our Lease, after the API server has refused a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseChange {
    /// The Lease was edited, and only this process has beaten since: we claim it anew.
    Edited,
    /// The Lease is unchanged except for a beat that is not ours. A process without a claim sent it, or a
    /// copy of this process.
    BeatenByAnother,
    /// The Lease is as it was before this process claimed it, or it is another Lease with an earlier beat.
    /// The Lease, or the whole store, was restored from a backup.
    RolledBack,
    /// Another process has claimed the Lease.
    Claimed,
}

/// Finds out what has happened. `before` is the Lease that we held. `now` is the Lease as read, which still
/// belongs to this instance.
pub fn lease_change(
    identity: &Identity,
    before: &LeaseVersion,
    written: &WrittenTimes,
    now: &Lease,
) -> LeaseChange {
    let held = LeaseVersion::of(now);
    if written.contains(renewed(now)) {
        return LeaseChange::Edited;
    }
    let other = held.uid != before.uid;
    // A claim always raises the count. A missing count is an edit.
    let fewer = held.transitions < before.transitions;
    if renewed(now) < written.confirmed && (other || fewer) {
        return LeaseChange::RolledBack;
    }
    let same = !other && held.transitions == before.transitions;
    if same && claims_the_same(identity, now) {
        LeaseChange::BeatenByAnother
    } else {
        LeaseChange::Claimed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::fixtures::{at, identity};
    use crate::lease::{HealthReport, Owner};

    fn lease(address: &str, transitions: i32, renewed: i64) -> Lease {
        let identity = identity(&[address]);
        let mut lease =
            identity.new_lease(&Owner::Outside, 3, &HealthReport::default(), "a/1", at(renewed));
        lease.metadata.uid = Some("u".to_owned());
        lease.spec.as_mut().expect("a spec").lease_transitions = Some(transitions);
        lease
    }

    fn written(confirmed: i64, unanswered: &[i64]) -> WrittenTimes {
        let mut written = WrittenTimes::default();
        written.accepted(Some(at(confirmed)));
        unanswered.iter().for_each(|&one| written.sending(at(one)));
        written
    }

    #[test]
    fn a_lease_that_was_only_edited_is_told_from_one_that_another_claims() {
        let ours = identity(&["192.0.2.1"]);
        let before = LeaseVersion::of(&lease("192.0.2.1", 4, 10));
        let written = written(10, &[11]);
        let lease_change = |lease: Lease| lease_change(&ours, &before, &written, &lease);
        assert_eq!(
            lease_change(lease("192.0.2.9", 9, 10)),
            LeaseChange::Edited,
            "no other process has beaten"
        );
        assert_eq!(
            lease_change(lease("192.0.2.1", 4, 11)),
            LeaseChange::Edited,
            "an answer was lost"
        );
        assert_eq!(lease_change(lease("192.0.2.1", 4, 12)), LeaseChange::BeatenByAnother);
        assert_eq!(lease_change(lease("192.0.2.1", 5, 12)), LeaseChange::Claimed);
        assert_eq!(
            lease_change(lease("192.0.2.2", 4, 12)),
            LeaseChange::Claimed,
            "by its address alone"
        );
        let mut anew = lease("192.0.2.1", 4, 12);
        anew.metadata.uid = Some("another".to_owned());
        assert_eq!(lease_change(anew), LeaseChange::Claimed);
    }

    #[test]
    fn a_lease_that_was_put_back_is_told_from_one_that_another_claims() {
        let ours = identity(&["192.0.2.1"]);
        let before = LeaseVersion::of(&lease("192.0.2.1", 4, 10));
        let lease_change = |lease: Lease| lease_change(&ours, &before, &written(10, &[11]), &lease);
        // The Lease of an earlier run of this machine, which had another address.
        assert_eq!(lease_change(lease("192.0.2.9", 3, 7)), LeaseChange::RolledBack);
        let mut anew = lease("192.0.2.1", 4, 7);
        anew.metadata.uid = Some("another".to_owned());
        assert_eq!(lease_change(anew.clone()), LeaseChange::RolledBack);
        // A person has emptied the Lease.
        let mut emptied = lease("192.0.2.1", 4, 10);
        emptied.spec = Some(Default::default());
        assert_eq!(lease_change(emptied), LeaseChange::RolledBack);
        // The claim of another process, whose clock may be slow.
        assert_eq!(lease_change(lease("192.0.2.9", 5, 7)), LeaseChange::Claimed);
        anew.spec.as_mut().expect("a spec").renew_time =
            lease("192.0.2.1", 4, 12).spec.expect("a spec").renew_time;
        assert_eq!(lease_change(anew), LeaseChange::Claimed);
    }
}

//! What is known of another process that beats under the same name. Without I/O.

use std::time::Duration;

use beatkeeper_api::heartbeat::{self, RIVAL_ANNOTATION};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use rand::{TryRngCore, rngs::OsRng};
use tokio::time::Instant;

use crate::{
    lease::{Held, Identity, renewed},
    names::hostname,
    schedule::Pace,
};

/// The maximum length of the list of renewTimes that were sent without an answer. No ttl has time for more
/// tries.
const UNANSWERED_MAX: usize = 64;

/// Makes a name for this run of the process: its host, and a number that no other run has.
pub fn incarnation() -> String {
    // The number comes from the kernel: a copy of this process, as in a snapshot of its machine, has the same
    // generators in memory.
    let number = OsRng.try_next_u32().unwrap_or_else(|_| rand::random());
    format!("{}/{number:08x}", hostname())
}

/// Makes the note of a process that stands by: its claim, and a text that changes each time. From the
/// changes, others see that the process still runs.
pub fn announcement(identity: &Identity, incarnation: &str, at: Timestamp) -> String {
    let addresses = identity.addresses();
    let at_addresses = addresses.map(|all| format!(" at {all}")).unwrap_or_default();
    format!("{incarnation}{at_addresses}; {}", heartbeat::renew_time(at))
}

/// The renewTimes that this process has written or may have written.
#[derive(Debug, Clone, Default)]
pub struct Written {
    confirmed: Option<Timestamp>,
    unanswered: Vec<Timestamp>,
}

impl Written {
    /// Records a renewTime that is being sent.
    pub fn sending(&mut self, at: Timestamp) {
        if self.unanswered.len() == UNANSWERED_MAX {
            self.unanswered.remove(0);
        }
        self.unanswered.push(at);
    }

    /// Records that a renewTime was accepted, which overwrites all earlier ones. `stored` is the time in the
    /// answer. It may differ from the time that was sent, because a webhook may truncate it.
    pub fn accepted(&mut self, stored: Option<Timestamp>) {
        *self = Self { confirmed: stored, unanswered: Vec::new() };
    }

    /// Records that a renewTime was refused, and so never written.
    pub fn refused(&mut self, at: Timestamp) {
        self.unanswered.retain(|one| *one != at);
    }

    /// The renewTime that the Lease has if no other process beats for it. `None` while an answer is missing.
    pub fn expected(&self) -> Option<Timestamp> {
        self.confirmed.filter(|_| self.unanswered.is_empty())
    }

    /// Whether this process may have written this renewTime.
    pub fn contains(&self, at: Option<Timestamp>) -> bool {
        at.is_some_and(|at| self.confirmed == Some(at) || self.unanswered.contains(&at))
    }
}

/// What has happened to our Lease, after the API server has refused a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// The Lease was edited, and only this process has beaten since: we claim it anew.
    Edited,
    /// The Lease is unchanged except for a beat that is not ours. A process without a claim sent it, or a
    /// copy of this process.
    BeatenByAnother,
    /// The Lease is as it was before this process claimed it, or it is another Lease with an earlier beat.
    /// The Lease, or the whole store, was restored from a backup.
    GoneBack,
    /// Another process has claimed the Lease.
    Claimed,
}

/// Finds out what has happened. `before` is the Lease that we held. `now` is the Lease as read, which still
/// belongs to this instance.
pub fn became(identity: &Identity, before: &Held, written: &Written, now: &Lease) -> Became {
    let held = Held::of(now);
    if written.contains(renewed(now)) {
        return Became::Edited;
    }
    let other = held.uid != before.uid;
    // A claim always raises the count. A missing count is an edit.
    let fewer = held.transitions < before.transitions;
    if renewed(now) < written.confirmed && (other || fewer) {
        return Became::GoneBack;
    }
    let same = !other && held.transitions == before.transitions;
    if same && claims_the_same(identity, now) { Became::BeatenByAnother } else { Became::Claimed }
}

/// Whether the Lease names the same addresses as this identity.
pub fn claims_the_same(identity: &Identity, lease: &Lease) -> bool {
    named_addresses(lease) == identity.addresses().as_deref()
}

/// Returns the addresses that a Lease names.
pub fn named_addresses(lease: &Lease) -> Option<&str> {
    annotation(lease, heartbeat::ADDRESSES_ANNOTATION)
}

/// Returns the note that a rival has left.
pub fn rival_note(lease: &Lease) -> Option<&str> {
    annotation(lease, RIVAL_ANNOTATION)
}

fn annotation<'a>(lease: &'a Lease, name: &str) -> Option<&'a str> {
    lease.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Watches, by our own clock, a text that another process changes as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vigil {
    seen: Option<String>,
    /// Since when the text has been seen unchanged.
    since: Instant,
    /// When the text was last read.
    looked: Instant,
}

impl Vigil {
    /// Begins with the text that was just seen for the first time.
    pub fn begin(seen: Option<String>, now: Instant) -> Self {
        Self { seen, since: now, looked: now }
    }

    /// Records that the text was read again. If it could not be read for long, the other process may not have
    /// been able to change it either, so the time before that does not count.
    pub fn look(&mut self, seen: Option<String>, now: Instant, pace: &Pace) {
        if self.seen != seen || now - self.looked > Self::blind_after(pace) {
            self.since = now;
        }
        self.seen = seen;
        self.looked = now;
    }

    /// Returns the text that was last seen.
    pub fn seen(&self) -> Option<&str> {
        self.seen.as_deref()
    }

    /// When the other process will have been silent for a ttl, if the text does not change before.
    pub fn ends(&self, pace: &Pace) -> Instant {
        self.since + pace.ttl()
    }

    /// Whether the other process has been silent for a ttl.
    pub fn is_over(&self, now: Instant, pace: &Pace) -> bool {
        now >= self.ends(pace) && now - self.looked <= Self::blind_after(pace)
    }

    fn blind_after(pace: &Pace) -> Duration {
        pace.interval() + (pace.ttl() - pace.interval()) / 2
    }
}

/// The part of a Lease that changes while its holder lives.
pub fn sign_of_life(lease: &Lease) -> Option<String> {
    let Held { uid, transitions, .. } = Held::of(lease);
    let renewed = renewed(lease).map(heartbeat::renew_time).unwrap_or_default();
    Some(format!("{uid} {} {renewed}", transitions.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::{Home, Owner, Word};
    use std::collections::BTreeMap;

    fn identity(address: &str) -> Identity {
        Identity {
            namespace: "shop".to_owned(),
            registration: "greeter".to_owned(),
            instance: "vm-1".to_owned(),
            home: Home::Outside(vec![address.parse().expect("an IP")]),
            version: None,
            metadata: BTreeMap::new(),
        }
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_microsecond(micros).expect("in range")
    }

    fn lease(address: &str, transitions: i32, renewed: i64) -> Lease {
        let identity = identity(address);
        let mut lease =
            identity.new_lease(&Owner::Outside, 3, &Word::default(), "a/1", at(renewed));
        lease.metadata.uid = Some("u".to_owned());
        lease.spec.as_mut().expect("a spec").lease_transitions = Some(transitions);
        lease
    }

    fn written(confirmed: i64, unanswered: &[i64]) -> Written {
        let mut written = Written::default();
        written.accepted(Some(at(confirmed)));
        unanswered.iter().for_each(|&one| written.sending(at(one)));
        written
    }

    #[test]
    fn a_lease_that_was_only_edited_is_told_from_one_that_another_claims() {
        let ours = identity("192.0.2.1");
        let before = Held::of(&lease("192.0.2.1", 4, 10));
        let written = written(10, &[11]);
        let became = |lease: Lease| became(&ours, &before, &written, &lease);
        assert_eq!(
            became(lease("192.0.2.9", 9, 10)),
            Became::Edited,
            "no other process has beaten"
        );
        assert_eq!(became(lease("192.0.2.1", 4, 11)), Became::Edited, "an answer was lost");
        assert_eq!(became(lease("192.0.2.1", 4, 12)), Became::BeatenByAnother);
        assert_eq!(became(lease("192.0.2.1", 5, 12)), Became::Claimed);
        assert_eq!(became(lease("192.0.2.2", 4, 12)), Became::Claimed, "by its address alone");
        let mut anew = lease("192.0.2.1", 4, 12);
        anew.metadata.uid = Some("another".to_owned());
        assert_eq!(became(anew), Became::Claimed);
    }

    #[test]
    fn a_lease_that_was_put_back_is_told_from_one_that_another_claims() {
        let ours = identity("192.0.2.1");
        let before = Held::of(&lease("192.0.2.1", 4, 10));
        let became = |lease: Lease| became(&ours, &before, &written(10, &[11]), &lease);
        // The Lease of an earlier run of this machine, which had another address.
        assert_eq!(became(lease("192.0.2.9", 3, 7)), Became::GoneBack);
        let mut anew = lease("192.0.2.1", 4, 7);
        anew.metadata.uid = Some("another".to_owned());
        assert_eq!(became(anew.clone()), Became::GoneBack);
        // A person has emptied the Lease.
        let mut emptied = lease("192.0.2.1", 4, 10);
        emptied.spec = Some(Default::default());
        assert_eq!(became(emptied), Became::GoneBack);
        // The claim of another process, whose clock may be slow.
        assert_eq!(became(lease("192.0.2.9", 5, 7)), Became::Claimed);
        anew.spec.as_mut().expect("a spec").renew_time =
            lease("192.0.2.1", 4, 12).spec.expect("a spec").renew_time;
        assert_eq!(became(anew), Became::Claimed);
    }

    #[test]
    fn what_a_lease_should_hold_is_known_while_no_answer_is_missing() {
        let mut written = written(10, &[]);
        assert_eq!(written.expected(), Some(at(10)));
        written.sending(at(11));
        assert_eq!(written.expected(), None);
        written.refused(at(11));
        assert_eq!(written.expected(), Some(at(10)));
        written.sending(at(12));
        written.accepted(Some(at(12)));
        assert!(!written.contains(Some(at(10))) && written.contains(Some(at(12))));
        assert!(!written.contains(None));
    }

    fn pace() -> Pace {
        let spec = beatkeeper_api::ServiceRegistrationSpec {
            ttl: "30s".to_owned(),
            interval: "10s".to_owned(),
            ..Default::default()
        };
        let registration = beatkeeper_api::ServiceRegistration::new("greeter", spec);
        Pace::of(&registration, None).expect("a pace")
    }

    #[tokio::test(start_paused = true)]
    async fn another_process_is_silent_after_a_watched_ttl_without_a_beat() {
        let (pace, began) = (pace(), Instant::now());
        let second = Duration::from_secs(1);
        let mut vigil = Vigil::begin(Some("a".to_owned()), began);
        for seconds in [10, 20, 29] {
            vigil.look(Some("a".to_owned()), began + second * seconds, &pace);
            assert!(!vigil.is_over(began + second * seconds, &pace));
        }
        assert!(vigil.is_over(began + second * 30, &pace));
        assert_eq!(vigil.ends(&pace), began + second * 30);
        vigil.look(Some("b".to_owned()), began + second * 30, &pace);
        assert!(!vigil.is_over(began + second * 40, &pace));
    }

    #[tokio::test(start_paused = true)]
    async fn time_without_observations_counts_for_neither_process() {
        let (pace, began) = (pace(), Instant::now());
        let second = Duration::from_secs(1);
        let mut vigil = Vigil::begin(None, began);
        // The API server was away.
        vigil.look(None, began + second * 300, &pace);
        assert!(!vigil.is_over(began + second * 300, &pace));
        vigil.look(None, began + second * 315, &pace);
        assert!(vigil.is_over(began + second * 330, &pace));
        assert!(!vigil.is_over(began + second * 600, &pace), "it was not looked at since");
    }

    #[test]
    fn each_process_has_a_different_name() {
        assert_ne!(incarnation(), incarnation());
        let told = announcement(&identity("192.0.2.1"), "vm-a/1", at(0));
        assert_eq!(told, "vm-a/1 at 192.0.2.1; 1970-01-01T00:00:00.000000Z");
    }
}

//! Observes the Leases of a registration: which instance beat, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use beatkeeper_api::heartbeat::{CORDONED_ANNOTATION, REGISTRATION_LABEL, instance_of};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The observations of one instance's Lease.
#[derive(Clone, Debug)]
pub struct Beats {
    token: Token,
    /// When the Lease was first seen, or first seen again after its deletion.
    pub first: Instant,
    /// When the token was last seen to change.
    pub last: Instant,
    cordoned: bool,
    /// When the cordon was last set or lifted.
    pub cordon_changed: Option<Instant>,
    /// When the deletion of the Lease was seen.
    pub deleted: Option<Instant>,
}

/// The uid and renewTime of a Lease. Any change of the token is a beat.
type Token = (String, String);

/// Watches Leases until it is dropped.
pub struct LeaseObserver {
    leases: watch::Receiver<Leases>,
    _watch: JoinSet<()>,
}

impl LeaseObserver {
    /// Watches the Leases of a registration.
    pub fn start(leases: Api<Lease>, registration: &str) -> Self {
        let label = format!("{REGISTRATION_LABEL}={registration}");
        let events = watcher(leases, watcher::Config::default().labels(&label)).boxed();
        let (sender, leases) = watch::channel(Leases::default());
        let mut task = JoinSet::new();
        task.spawn(follow(events, sender));
        Self { leases, _watch: task }
    }

    /// Returns the observed beats of an instance, or `None` before the first.
    pub fn beats(&self, instance: &str) -> Option<Beats> {
        self.leases.borrow().0.get(instance).cloned()
    }

    /// Returns a receiver that is notified of each change.
    pub fn receiver(&self) -> watch::Receiver<Leases> {
        self.leases.clone()
    }
}

/// Records each event when it arrives. A watch that breaks begins again with a list.
async fn follow(
    mut events: futures::stream::BoxStream<'static, watcher::Result<Event<Lease>>>,
    to: watch::Sender<Leases>,
) {
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        let now = Instant::now();
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(lease)) => {
                listed.insert(instance(&lease));
                to.send_modify(|leases| leases.apply(&lease, now));
            }
            Ok(Event::InitDone) => to.send_modify(|leases| leases.keep(&listed, now)),
            Ok(Event::Apply(lease)) => to.send_modify(|leases| leases.apply(&lease, now)),
            Ok(Event::Delete(lease)) => {
                to.send_modify(|leases| leases.delete(&instance(&lease), now))
            }
            // The stream retries at once. The pause prevents too many requests to an API server that does not
            // answer.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The observations of all instances, by name.
#[derive(Debug, Default)]
pub struct Leases(BTreeMap<String, Beats>);

impl Leases {
    /// Handles a Lease that appeared or changed.
    fn apply(&mut self, lease: &Lease, now: Instant) {
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
        let renewed = renewed.map_or_else(String::new, |time| time.0.to_string());
        let token = (lease.uid().unwrap_or_default(), renewed);
        let cordoned = lease.annotations().contains_key(CORDONED_ANNOTATION);
        let beats = self.0.entry(instance(lease)).or_insert_with(|| Beats {
            token: token.clone(),
            first: now,
            last: now,
            cordoned,
            cordon_changed: None,
            deleted: None,
        });
        if beats.deleted.take().is_some() {
            beats.first = now;
        }
        if beats.token != token {
            (beats.token, beats.last) = (token, now);
        }
        if beats.cordoned != cordoned {
            (beats.cordoned, beats.cordon_changed) = (cordoned, Some(now));
        }
    }

    fn delete(&mut self, instance: &str, now: Instant) {
        if let Some(beats) = self.0.get_mut(instance) {
            beats.deleted.get_or_insert(now);
        }
    }

    /// Handles the end of a list: a Lease that is not in it is deleted.
    fn keep(&mut self, listed: &BTreeSet<String>, now: Instant) {
        let gone: Vec<String> =
            self.0.keys().filter(|name| !listed.contains(*name)).cloned().collect();
        gone.iter().for_each(|instance| self.delete(instance, now));
    }
}

fn instance(lease: &Lease) -> String {
    let registration = lease.labels().get(REGISTRATION_LABEL).map_or("", String::as_str);
    let name = lease.name_any();
    instance_of(&name, registration).unwrap_or(&name).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    fn lease(renewed: &str, cordoned: bool) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.name = Some("greeter.vm-1".to_owned());
        lease.labels_mut().insert(REGISTRATION_LABEL.to_owned(), "greeter".to_owned());
        lease.spec.get_or_insert_default().renew_time = Some(MicroTime(renewed.parse().unwrap()));
        if cordoned {
            lease.annotations_mut().insert(CORDONED_ANNOTATION.to_owned(), "why".to_owned());
        }
        lease
    }

    #[test]
    fn only_a_changed_token_is_a_beat() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let [one, two] = ["2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"];
        let mut leases = Leases::default();
        leases.apply(&lease(one, false), at(1));
        leases.apply(&lease(one, true), at(2));
        leases.apply(&lease(two, true), at(3));
        let beats = leases.0["vm-1"].clone();
        assert_eq!((beats.first, beats.last, beats.cordon_changed), (at(1), at(3), Some(at(2))));
        leases.keep(&BTreeSet::new(), at(4));
        assert_eq!(leases.0["vm-1"].deleted, Some(at(4)));
        leases.apply(&lease(two, true), at(5));
        assert_eq!((leases.0["vm-1"].deleted, leases.0["vm-1"].first), (None, at(5)));
    }
}

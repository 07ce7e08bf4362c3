//! An independent observer of one registration and its Service. It watches Leases, EndpointSlices and Endpoints as any
//! client may, and records each change with its time on the monotonic clock.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use beatkeeper_test_support::{EndpointsObserver, History, Select, SliceObserver};
use kube::{Api, Client};
use tokio::time::timeout;

use crate::beats::{Beats, LeaseObserver};

/// Observes until it is dropped.
pub struct Observer {
    leases: LeaseObserver,
    slices: SliceObserver,
    endpoints: EndpointsObserver,
    /// The addresses that must not be missing, and since when.
    guarded: BTreeMap<IpAddr, Instant>,
    missed: Option<String>,
}

/// A moment in each object in which clients find an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Both {
    /// In the EndpointSlices.
    pub slices: Instant,
    /// In the Endpoints.
    pub endpoints: Instant,
}

impl Both {
    /// Returns the later moment: from then on, the change is visible to every client.
    pub fn last(self) -> Instant {
        self.slices.max(self.endpoints)
    }
}

impl Observer {
    /// Observes `name` in `namespace`.
    pub async fn start(client: &Client, namespace: &str, name: &str) -> Result<Self> {
        let slices = Api::namespaced(client.clone(), namespace);
        let endpoints = Api::namespaced(client.clone(), namespace);
        Ok(Self {
            leases: LeaseObserver::start(Api::namespaced(client.clone(), namespace), name),
            slices: SliceObserver::of_service(slices, name, Select::Ready).await?,
            endpoints: EndpointsObserver::of_service(endpoints, name).await?,
            guarded: BTreeMap::new(),
            missed: None,
        })
    }

    /// From now on, this address must be in both objects, in every state.
    pub fn guard(&mut self, address: IpAddr) {
        self.guarded.insert(address, Instant::now());
    }

    /// From now on, this address may be missing.
    pub fn release(&mut self, address: IpAddr) {
        self.missed = self.missed();
        self.guarded.remove(&address);
    }

    /// Returns the observed beats of an instance, or `None` before the first.
    pub fn beats(&self, instance: &str) -> Option<Beats> {
        self.leases.beats(instance)
    }

    /// Returns when an address was first seen to be listed (or not listed) in both objects. Returns `None` while one
    /// of the two differs.
    pub fn since(&self, address: IpAddr, listed: bool) -> Option<Both> {
        let address = address.to_string();
        let at = |history: &History| history.since(&address, listed);
        Some(Both { slices: self.slices.look(at)?, endpoints: self.endpoints.look(at)? })
    }

    /// Returns how many states of the EndpointSlices and of the Endpoints were seen.
    pub fn states(&self) -> (usize, usize) {
        (self.slices.look(History::states), self.endpoints.look(History::states))
    }

    /// Returns which guarded address was missing and where, if any.
    pub fn missed(&self) -> Option<String> {
        let missing = self.guarded.iter().find_map(|(address, since)| {
            let is_missing = |history: &History| is_missing(history, &address.to_string(), *since);
            let place = match (self.slices.look(is_missing), self.endpoints.look(is_missing)) {
                (true, _) => "the EndpointSlices",
                (_, true) => "the Endpoints",
                _ => return None,
            };
            Some(format!("a survivor blinked: {address} beats, and was missing from {place}"))
        });
        self.missed.clone().or(missing)
    }

    /// Waits for an observation, and fails as soon as a guarded address is missing.
    pub async fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut so: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T> {
        let (mut leases, mut slices) = (self.leases.receiver(), self.slices.receiver());
        let mut endpoints = self.endpoints.receiver();
        let seen = async {
            loop {
                if let Some(missed) = self.missed() {
                    bail!("{missed}");
                }
                if let Some(found) = so(self) {
                    return Ok(found);
                }
                let changed = tokio::select! {
                    changed = leases.changed() => changed,
                    changed = slices.changed() => changed,
                    changed = endpoints.changed() => changed,
                };
                changed.context("the watches have ended")?;
            }
        };
        match timeout(limit, seen).await {
            Ok(result) => result,
            Err(_) => bail!("waited {} s in vain until {what}", limit.as_secs()),
        }
    }
}

/// Whether an address was not published at some moment since `since`.
fn is_missing(history: &History, address: &str, since: Instant) -> bool {
    let left = |change: &beatkeeper_test_support::Change| {
        change.address == address && !change.published && change.at >= since
    };
    !history.is_published(address) || history.changes().iter().any(left)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_address_that_was_missing_before_it_was_guarded_is_not_missed() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut history = History::default();
        let a = || BTreeSet::from(["a".to_owned()]);
        for (ms, addresses) in [(1, a()), (2, BTreeSet::new()), (4, a())] {
            history.record("slice".to_owned(), addresses, at(ms));
        }
        assert!(!is_missing(&history, "a", at(3)) && is_missing(&history, "a", at(2)));
        history.record("slice".to_owned(), BTreeSet::new(), at(5));
        assert!(is_missing(&history, "a", at(6)));
    }
}

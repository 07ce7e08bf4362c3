//! An independent watcher of what a Service publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;

use crate::clock::Moment;

/// The timeout for what takes a minute by default, and for Pods that start or resume.
const PATIENCE: Duration = Duration::from_secs(180);

/// Watches the slices of a Service by their label, as every consumer does.
pub struct Witness(watch::Receiver<View>);

impl Witness {
    /// Starts the watch.
    pub fn of(slices: Api<EndpointSlice>, service: &str) -> Self {
        let (views, seen) = watch::channel(View::default());
        tokio::spawn(follow(slices, service.to_owned(), views));
        Self(seen)
    }

    /// Waits until `addresses` addresses are ready.
    ///
    /// # Errors
    /// If they are not ready within 180 s, or the watch broke.
    pub async fn until_ready(&self, addresses: usize) -> Result<()> {
        let what = format!("{addresses} addresses are ready in the slices");
        self.until(&what, |view| (view.ready.len() == addresses).then_some(())).await
    }

    /// Returns when an address that was ready was no longer ready.
    ///
    /// # Errors
    /// If the address stays ready for 180 s, or the watch broke.
    pub async fn left(&self, address: &str, since: Moment) -> Result<Moment> {
        let what = format!("{address} is no longer ready in the slices");
        self.until(&what, |view| view.left_after(address, since)).await
    }

    async fn until<T>(&self, what: &str, look: impl Fn(&View) -> Option<T>) -> Result<T> {
        let mut seen = self.0.clone();
        let found = async {
            loop {
                if let Some(found) = look(&seen.borrow_and_update()) {
                    return Ok(found);
                }
                seen.changed().await.context("the watch of the slices broke")?;
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.with_context(|| format!("waited {} s in vain until {what}", PATIENCE.as_secs()))?
    }
}

/// Ends when the watch breaks: later observations have no exact time.
async fn follow(api: Api<EndpointSlice>, service: String, views: watch::Sender<View>) {
    let label = Config::default().labels(&format!("kubernetes.io/service-name={service}"));
    let mut events = pin!(watcher(api, label));
    let mut slices = BTreeMap::new();
    while let Some(event) = events.next().await {
        let at = Moment::now();
        match event {
            Ok(Event::Init) => {
                slices.clear();
                continue;
            }
            Ok(Event::InitApply(slice)) => {
                slices.insert(slice.name_any(), slice);
                continue;
            }
            Ok(Event::InitDone) => {}
            Ok(Event::Apply(slice)) => {
                slices.insert(slice.name_any(), slice);
            }
            Ok(Event::Delete(slice)) => {
                slices.remove(&slice.name_any());
            }
            Err(error) => {
                eprintln!("the watch of the slices breaks: {error}");
                return;
            }
        }
        views.send_modify(|view| view.take_in(ready(slices.values()), at));
    }
}

fn ready<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> BTreeSet<String> {
    let endpoints = slices.flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|it| it.conditions.as_ref().and_then(|it| it.ready) == Some(true));
    ready.flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect()
}

#[derive(Debug, Default)]
struct View {
    /// Addresses that are ready in the union of all slices.
    ready: BTreeSet<String>,
    /// When each address last stopped being ready.
    left: BTreeMap<String, Moment>,
}

impl View {
    fn take_in(&mut self, ready: BTreeSet<String>, at: Moment) {
        self.left.extend(self.ready.difference(&ready).map(|address| (address.clone(), at)));
        self.ready = ready;
    }

    fn left_after(&self, address: &str, since: Moment) -> Option<Moment> {
        self.left.get(address).copied().filter(|left| *left > since)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn addresses(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|&address| address.to_owned()).collect()
    }

    #[test]
    fn an_address_has_left_when_it_was_there_and_is_no_more() {
        let mut view = View::default();
        view.take_in(addresses(&["a", "b"]), Moment(1));
        view.take_in(addresses(&["b"]), Moment(5));
        view.take_in(addresses(&["b"]), Moment(7));
        assert_eq!(view.left_after("a", Moment(3)), Some(Moment(5)));
        assert_eq!(view.left_after("b", Moment(0)), None);
        assert_eq!(view.left_after("never seen", Moment(0)), None);
    }

    #[test]
    fn an_address_that_left_earlier_and_is_back_has_not_left_again() {
        let mut view = View::default();
        for (at, ready) in [(1, &["a"][..]), (2, &[]), (4, &["a"])] {
            view.take_in(addresses(ready), Moment(at));
        }
        assert_eq!(view.left_after("a", Moment(3)), None);
        view.take_in(addresses(&[]), Moment(9));
        assert_eq!(view.left_after("a", Moment(3)), Some(Moment(9)));
    }

    #[test]
    fn an_endpoint_that_stays_in_its_slice_and_is_not_ready_does_not_count() {
        let slice = |address: &str, ready: Option<bool>| -> EndpointSlice {
            serde_json::from_value(json!({
                "addressType": "IPv4", "metadata": {},
                "endpoints": [{ "addresses": [address], "conditions": { "ready": ready } }],
            }))
            .unwrap()
        };
        let slices = [slice("a", Some(true)), slice("b", Some(false)), slice("c", None)];
        assert_eq!(ready(slices.iter()), addresses(&["a"]));
    }
}

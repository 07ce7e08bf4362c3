//! Watches the objects in which a Service publishes its addresses, and records every state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::{ListParams, VersionMatch, WatchEvent, WatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::history::History;

/// The most revisions that are read one by one after a watch could not be continued.
const LOOKED_UP: u64 = 20_000;
/// How long an address that must leave is waited for. The machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause before a watch is continued.
const PAUSE: Duration = Duration::from_millis(20);

/// An object that lists addresses.
pub trait Published:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
    /// Returns the addresses that the object lists.
    fn addresses(&self, select: Select) -> BTreeSet<String>;
}

/// Which addresses of an object count as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// Those that are ready.
    Ready,
    /// All that are listed in an EndpointSlice, in any condition.
    Listed,
}

impl Published for EndpointSlice {
    fn addresses(&self, select: Select) -> BTreeSet<String> {
        let counts = |endpoint: &&Endpoint| {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
            select == Select::Listed || ready == Some(true)
        };
        let endpoints = self.endpoints.iter().filter(counts);
        endpoints.flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect()
    }
}

impl Published for Endpoints {
    fn addresses(&self, _: Select) -> BTreeSet<String> {
        let subsets = self.subsets.iter().flatten();
        let ready = subsets.flat_map(|subset| subset.addresses.iter().flatten());
        ready.map(|address| address.ip.clone()).collect()
    }
}

/// Observes the EndpointSlices of a Service, or all of a namespace.
pub type SliceObserver = Observer<EndpointSlice>;
/// Observes the Endpoints object of a Service.
pub type EndpointsObserver = Observer<Endpoints>;

/// Watches objects of one kind until it is dropped.
///
/// A watch that fails is continued at its last resource version. If the API server no longer has that version, every
/// revision since then is read from its history, so that no state is missed.
pub struct Observer<K> {
    history: watch::Receiver<History>,
    _watch: AbortOnDropHandle<()>,
    kind: std::marker::PhantomData<fn() -> K>,
}

impl SliceObserver {
    /// Observes the slices of a Service by their label, as every consumer does.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn of_service(
        slices: Api<EndpointSlice>,
        service: &str,
        select: Select,
    ) -> Result<Self> {
        let label = format!("kubernetes.io/service-name={service}");
        Self::start(slices, ListParams::default().labels(&label), select).await
    }
}

impl EndpointsObserver {
    /// Observes the Endpoints object of a Service.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn of_service(endpoints: Api<Endpoints>, service: &str) -> Result<Self> {
        let name = format!("metadata.name={service}");
        Self::start(endpoints, ListParams::default().fields(&name), Select::Ready).await
    }
}

impl<K: Published> Observer<K> {
    /// Observes the objects that `which` selects. When this returns, the current state is recorded.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn start(api: Api<K>, which: ListParams, select: Select) -> Result<Self> {
        let (sender, history) = watch::channel(History::default());
        let task = Task { api, which, select, history: sender };
        let listed = task.api.list(&task.which).await.context("cannot list what is published")?;
        let version =
            listed.metadata.resource_version.clone().context("a list without a version")?;
        task.record_all(&listed.items);
        let _watch = AbortOnDropHandle::new(tokio::spawn(task.follow(version)));
        Ok(Self { history, _watch, kind: std::marker::PhantomData })
    }
}

impl<K> Observer<K> {
    /// Reads the observations so far.
    pub fn look<T>(&self, at: impl FnOnce(&History) -> T) -> T {
        at(&self.history.borrow())
    }

    /// Returns the addresses that are published now.
    pub fn published(&self) -> BTreeSet<String> {
        self.look(History::published)
    }

    /// Waits until `look` returns a value, and returns it. `look` is called for the present state, and after each
    /// change.
    ///
    /// # Errors
    /// If it returns none within `limit`; the error names `what` was waited for.
    pub async fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&History) -> Option<T>,
    ) -> Result<T> {
        let mut history = self.history.clone();
        let found = async {
            loop {
                if let Some(found) = look(&history.borrow_and_update()) {
                    return Ok(found);
                }
                history.changed().await.context("the observer has ended")?;
            }
        };
        let found = tokio::time::timeout(limit, found).await;
        found.with_context(|| format!("waited {} s in vain until {what}", limit.as_secs()))?
    }

    /// Checks that these addresses were published in every state.
    ///
    /// # Errors
    /// If one was missing, or if a state was not seen.
    pub fn always_published(&self, addresses: &BTreeSet<String>) -> Result<()> {
        let (missing, gaps) = self.look(|history| (history.missing(addresses), history.gaps()));
        ensure!(missing.is_empty(), "{missing:?} were missing for a moment");
        ensure!(gaps == 0, "the observer has not seen every state");
        Ok(())
    }

    /// Returns the addresses that left, in order. An address that left twice occurs twice.
    pub fn left(&self) -> Vec<String> {
        self.look(History::left)
    }

    /// Waits until an address has left for the first time, and returns when that was seen.
    ///
    /// # Errors
    /// If it does not leave within 60 s.
    pub async fn leaves(&self, address: &str) -> Result<Instant> {
        let what = format!("{address} leaves what is published");
        self.until(&what, PATIENCE, |history| history.first_left(address)).await
    }

    /// Returns a receiver that is notified of each change.
    pub fn receiver(&self) -> watch::Receiver<History> {
        self.history.clone()
    }
}

struct Task<K> {
    api: Api<K>,
    which: ListParams,
    select: Select,
    history: watch::Sender<History>,
}

impl<K: Published> Task<K> {
    async fn follow(self, mut version: String) {
        loop {
            let continuable = self.watch(&mut version).await;
            if !continuable && let Some(now) = self.look_up(&version).await {
                version = now;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Records events until the watch ends. Returns whether the watch can be continued where it ended.
    async fn watch(&self, version: &mut String) -> bool {
        let which = WatchParams {
            label_selector: self.which.label_selector.clone(),
            field_selector: self.which.field_selector.clone(),
            ..WatchParams::default()
        };
        let mut events = match self.api.watch(&which, version).await {
            Ok(events) => pin!(events),
            Err(error) => return self.interrupted(&error),
        };
        while let Some(event) = events.next().await {
            let at = Instant::now();
            let (object, addresses) = match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    let addresses = object.addresses(self.select);
                    (object, addresses)
                }
                Ok(WatchEvent::Deleted(object)) => (object, BTreeSet::new()),
                Ok(WatchEvent::Bookmark(mark)) => {
                    *version = mark.metadata.resource_version;
                    continue;
                }
                Ok(WatchEvent::Error(status)) => {
                    return self.interrupted(&kube::Error::Api(status));
                }
                Err(error) => return self.interrupted(&error),
            };
            *version = object.resource_version().unwrap_or_default();
            self.history.send_modify(|history| {
                history.managers.extend(manager(&object));
                history.record(object.name_any(), addresses, at);
            });
        }
        true
    }

    /// Counts a failure of the watch. Returns whether the watch can be continued where it ended.
    fn interrupted(&self, error: &kube::Error) -> bool {
        self.history.send_modify(|history| history.interruptions += 1);
        !matches!(error, kube::Error::Api(status) if status.code == 410)
    }

    /// Records each revision since `version`. Returns the last one, or `None` while the API server does not answer.
    async fn look_up(&self, version: &str) -> Option<String> {
        let listed = self.api.list(&self.which).await.ok()?;
        let now = listed.metadata.resource_version.clone()?;
        let (from, to): (u64, u64) = (version.parse().ok()?, now.parse().ok()?);
        if to.saturating_sub(from) > LOOKED_UP {
            self.missed();
        } else {
            for revision in from + 1..to {
                let at = revision.to_string();
                let exactly = self.which.clone().at(&at).matching(VersionMatch::Exact);
                match self.api.list(&exactly).await {
                    Ok(state) => self.record_all(&state.items),
                    Err(kube::Error::Api(_)) => self.missed(),
                    // The API server is away again. All revisions are read once more later. A state that is recorded
                    // twice does no harm.
                    Err(_) => return None,
                }
            }
        }
        self.record_all(&listed.items);
        Some(now)
    }

    fn missed(&self) {
        self.history.send_modify(|history| history.gaps += 1);
    }

    fn record_all(&self, objects: &[K]) {
        let at = Instant::now();
        let all = objects.iter().map(|object| (object.name_any(), object.addresses(self.select)));
        let all: BTreeMap<String, BTreeSet<String>> = all.collect();
        self.history.send_modify(|history| {
            history.managers.extend(objects.iter().filter_map(manager));
            history.record_all(all, at);
        });
    }
}

fn manager<K: Resource>(object: &K) -> Option<String> {
    object.labels().get("endpointslice.kubernetes.io/managed-by").cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_endpoint_that_is_not_ready_is_listed_and_not_ready() {
        let endpoint = |address: &str, ready: Option<bool>| json!({ "addresses": [address], "conditions": { "ready": ready } });
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4", "metadata": {},
            "endpoints": [endpoint("a", Some(true)), endpoint("b", Some(false)), endpoint("c", None)],
        }))
        .expect("a slice");
        assert_eq!(slice.addresses(Select::Ready), BTreeSet::from(["a".to_owned()]));
        assert_eq!(slice.addresses(Select::Listed).len(), 3);
    }

    #[test]
    fn only_ready_addresses_of_endpoints_count() {
        let endpoints: Endpoints = serde_json::from_value(json!({ "metadata": {}, "subsets": [
            { "addresses": [{ "ip": "a" }], "notReadyAddresses": [{ "ip": "b" }] },
        ]}))
        .expect("Endpoints");
        assert_eq!(endpoints.addresses(Select::Listed), BTreeSet::from(["a".to_owned()]));
    }
}

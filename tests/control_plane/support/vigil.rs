//! A watch on the slices of a Service. It records every address that leaves, however briefly.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Instant,
};

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{
    WatchStreamExt,
    watcher::{self, Event, watcher},
};
use tokio::task::JoinHandle;

use super::{Shop, eventually};

type Slices = BTreeMap<String, BTreeSet<String>>;

/// Records each address that leaves all slices of a Service, and when.
pub struct Vigil {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    slices: Slices,
    listing: Slices,
    left: Vec<(String, Instant)>,
}

impl Vigil {
    /// Starts the watch. Returns when it has seen what is published now.
    pub async fn keep(shop: &Shop, service: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let config =
            watcher::Config::default().labels(&format!("kubernetes.io/service-name={service}"));
        let mut events = watcher(shop.api::<EndpointSlice>(), config).default_backoff().boxed();
        let noted = seen.clone();
        let (listed, first_list) = tokio::sync::oneshot::channel();
        let mut listed = Some(listed);
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let at = Instant::now();
                // The watcher restarts a broken watch with a list.
                let Ok(event) = event else { continue };
                noted.lock().unwrap().take_in(event, at);
                if !noted.lock().unwrap().slices.is_empty()
                    && let Some(listed) = listed.take()
                {
                    let _ = listed.send(());
                }
            }
        });
        first_list.await.unwrap();
        Self { seen, task }
    }

    /// Every address that has left, in order.
    pub fn left(&self) -> Vec<String> {
        self.seen.lock().unwrap().left.iter().map(|(address, _)| address.clone()).collect()
    }

    /// Waits until an address has left. Returns when the watch first saw that.
    pub async fn leaves(&self, address: &str) -> Instant {
        eventually(&format!("{address} leaves the slices"), async || {
            let seen = self.seen.lock().unwrap();
            seen.left.iter().find(|(left, _)| left == address).map(|(_, at)| *at)
        })
        .await
    }
}

impl Seen {
    fn take_in(&mut self, event: Event<EndpointSlice>, at: Instant) {
        let before = addresses(&self.slices);
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(slice) => insert(&mut self.listing, slice),
            Event::InitDone => self.slices = std::mem::take(&mut self.listing),
            Event::Apply(slice) => insert(&mut self.slices, slice),
            Event::Delete(slice) => {
                self.slices.remove(&slice.metadata.name.unwrap());
            }
        }
        let after = addresses(&self.slices);
        self.left.extend(before.difference(&after).map(|address| (address.clone(), at)));
    }
}

fn insert(slices: &mut Slices, slice: EndpointSlice) {
    let addresses = slice.endpoints.into_iter().flat_map(|endpoint| endpoint.addresses);
    slices.insert(slice.metadata.name.unwrap(), addresses.collect());
}

fn addresses(slices: &Slices) -> BTreeSet<String> {
    slices.values().flatten().cloned().collect()
}

impl Drop for Vigil {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! Records every state of every slice of a namespace in order, with the ready addresses.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, ResourceExt,
    api::{ListParams, VersionMatch, WatchEvent, WatchParams},
};
use tokio::task::JoinHandle;

use crate::support::Shop;

/// The most revisions that are read one by one after a watch could not be continued.
const LOOKED_UP: u64 = 20_000;

/// A period in which an address was among the ready endpoints.
#[derive(Debug, Clone, Copy)]
pub struct Stay {
    pub from: Instant,
    pub to: Option<Instant>,
}

/// Watches all slices of a namespace, and knows which addresses were published in which periods.
///
/// A watch that breaks is continued at its last resource version. If the API server no longer has
/// that version, every revision since then is read from its history, so that no state is missed.
/// Such states then have the time at which they were read.
pub struct Chronicle {
    pages: Arc<Mutex<Pages>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Pages {
    slices: HashMap<String, BTreeSet<String>>,
    /// The number of slices that contain an address.
    copies: HashMap<String, usize>,
    stays: BTreeMap<String, Vec<Stay>>,
    states: usize,
    holes: usize,
}

impl Pages {
    fn write(&mut self, slice: String, ready: BTreeSet<String>, at: Instant) {
        self.states += 1;
        let before = self.slices.insert(slice, ready.clone()).unwrap_or_default();
        for joined in ready.difference(&before) {
            let copies = self.copies.entry(joined.clone()).or_default();
            *copies += 1;
            if *copies == 1 {
                self.stays.entry(joined.clone()).or_default().push(Stay { from: at, to: None });
            }
        }
        for left in before.difference(&ready) {
            let copies = self.copies.get_mut(left).unwrap();
            *copies -= 1;
            if *copies == 0 {
                self.stays.get_mut(left).unwrap().last_mut().unwrap().to = Some(at);
            }
        }
    }

    /// Records a state of all slices. Additions are written before removals, because both belong to
    /// one moment.
    fn write_all(&mut self, slices: &[EndpointSlice], at: Instant) {
        let gone =
            self.slices.keys().filter(|name| slices.iter().all(|it| it.name_any() != **name));
        let gone: Vec<String> = gone.cloned().collect();
        let kept: BTreeSet<String> = slices.iter().flat_map(ready).collect();
        for slice in slices {
            let before = self.slices.get(&slice.name_any()).cloned().unwrap_or_default();
            let moving = before.intersection(&kept).cloned();
            let union = ready(slice).into_iter().chain(moving).collect();
            self.write(slice.name_any(), union, at);
        }
        slices.iter().for_each(|slice| self.write(slice.name_any(), ready(slice), at));
        gone.into_iter().for_each(|name| self.write(name, BTreeSet::new(), at));
    }
}

impl Chronicle {
    /// Starts to record. The current state is recorded when this returns.
    pub async fn begin(shop: &Shop) -> Self {
        let slices: Api<EndpointSlice> = shop.api();
        let pages = Arc::new(Mutex::new(Pages::default()));
        let listed = slices.list(&ListParams::default()).await.unwrap();
        pages.lock().unwrap().write_all(&listed.items, Instant::now());
        let version = listed.metadata.resource_version.unwrap();
        let task = tokio::spawn(follow(slices, version, pages.clone()));
        Self { pages, task }
    }

    /// The periods in which each address was published.
    pub fn stays(&self) -> BTreeMap<String, Vec<Stay>> {
        self.pages.lock().unwrap().stays.clone()
    }

    /// The addresses that are published now.
    pub fn published(&self) -> BTreeSet<String> {
        let pages = self.pages.lock().unwrap();
        pages.copies.iter().filter(|(_, n)| **n > 0).map(|(address, _)| address.clone()).collect()
    }

    /// The number of recorded states.
    pub fn states(&self) -> usize {
        self.pages.lock().unwrap().states
    }

    /// The number of gaps in the history that could not be read.
    pub fn holes(&self) -> usize {
        self.pages.lock().unwrap().holes
    }
}

impl Drop for Chronicle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ready(slice: &EndpointSlice) -> BTreeSet<String> {
    let is_ready = |endpoint: &&k8s_openapi::api::discovery::v1::Endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
    };
    slice.endpoints.iter().filter(is_ready).flat_map(|it| it.addresses.clone()).collect()
}

async fn follow(slices: Api<EndpointSlice>, mut version: String, pages: Arc<Mutex<Pages>>) {
    loop {
        let continuable = watch(&slices, &mut version, &pages).await;
        if !continuable && let Some(now) = look_up(&slices, &version, &pages).await {
            version = now;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Records events until the watch ends. Returns whether the watch can be continued where it ended.
async fn watch(slices: &Api<EndpointSlice>, version: &mut String, pages: &Mutex<Pages>) -> bool {
    let mut events = match slices.watch(&WatchParams::default(), version).await {
        Ok(events) => std::pin::pin!(events),
        Err(kube::Error::Api(refused)) => return refused.code != 410,
        Err(_) => return true,
    };
    while let Some(event) = events.next().await {
        let at = Instant::now();
        let (slice, ready) = match event {
            Ok(WatchEvent::Added(slice) | WatchEvent::Modified(slice)) => {
                let ready = ready(&slice);
                (slice, ready)
            }
            Ok(WatchEvent::Deleted(slice)) => (slice, BTreeSet::new()),
            Ok(WatchEvent::Bookmark(mark)) => {
                *version = mark.metadata.resource_version;
                continue;
            }
            Ok(WatchEvent::Error(error)) => return error.code != 410,
            Err(_) => return true,
        };
        *version = slice.resource_version().unwrap();
        pages.lock().unwrap().write(slice.name_any(), ready, at);
    }
    true
}

/// Reads each revision since `version`. Returns the last one, or `None` while the API server does
/// not answer.
async fn look_up(
    slices: &Api<EndpointSlice>,
    version: &str,
    pages: &Mutex<Pages>,
) -> Option<String> {
    let listed = slices.list(&ListParams::default()).await.ok()?;
    let now = listed.metadata.resource_version.clone()?;
    let (from, to): (u64, u64) = (version.parse().unwrap(), now.parse().unwrap());
    if to.saturating_sub(from) > LOOKED_UP {
        pages.lock().unwrap().holes += 1;
    } else {
        for revision in from + 1..to {
            let revision = revision.to_string();
            let exactly = ListParams::default().at(&revision).matching(VersionMatch::Exact);
            match slices.list(&exactly).await {
                Ok(state) => pages.lock().unwrap().write_all(&state.items, Instant::now()),
                Err(kube::Error::Api(_)) => pages.lock().unwrap().holes += 1,
                // The API server is away again. All revisions are read once more later. States that
                // are recorded twice do no harm.
                Err(_) => return None,
            }
        }
    }
    pages.lock().unwrap().write_all(&listed.items, Instant::now());
    Some(now)
}

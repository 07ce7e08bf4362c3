//! An independent observer. It watches Leases, EndpointSlices and Endpoints as any client may, and records each
//! change with its time on the monotonic clock.
//!
//! This module neither asks the operator nor depends on how the operator works.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use beatkeeper_api::heartbeat::REGISTRATION_LABEL;
use futures::{Stream, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::object::{Kind, Object};
use crate::view::View;

/// The watches of one registration and the Service of the same name. They end when this value is dropped.
pub struct Watch {
    shared: Arc<Sender<View>>,
    view: Receiver<View>,
    _tasks: JoinSet<()>,
}

impl Watch {
    /// Watches `name` in `namespace`.
    pub fn start(client: &Client, namespace: &str, name: &str) -> Self {
        let (sender, view) = channel(View::default());
        let shared = Arc::new(sender);
        let mut tasks = JoinSet::new();
        let labelled = |label: &str| watcher::Config::default().labels(&format!("{label}={name}"));

        let leases = Api::<Lease>::namespaced(client.clone(), namespace);
        let leases = watcher::watcher(leases, labelled(REGISTRATION_LABEL));
        tasks.spawn(follow(leases, Object::lease, Kind::Lease, shared.clone()));

        let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace);
        let slices = watcher::watcher(slices, labelled("kubernetes.io/service-name"));
        tasks.spawn(follow(slices, Object::slice, Kind::Slice, shared.clone()));

        let endpoints = Api::<Endpoints>::namespaced(client.clone(), namespace);
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let endpoints = watcher::watcher(endpoints, only);
        tasks.spawn(follow(endpoints, Object::endpoints, Kind::Endpoints, shared.clone()));

        Self { shared, view, _tasks: tasks }
    }

    /// From now on, this address must be in both objects, in every state.
    pub fn guard(&self, address: IpAddr) {
        self.shared.send_modify(|view| view.guard(address));
    }

    /// From now on, this address may be missing.
    pub fn release(&self, address: IpAddr) {
        self.shared.send_modify(|view| view.release(address));
    }

    /// Reads the observations so far.
    pub fn look<T>(&self, at: impl FnOnce(&View) -> T) -> T {
        at(&self.view.borrow())
    }

    /// Waits for an observation, and fails as soon as a guarded address is missing.
    pub async fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut so: impl FnMut(&View) -> Option<T>,
    ) -> Result<T> {
        let mut view = self.view.clone();
        let seen = async {
            loop {
                let found = {
                    let view = view.borrow_and_update();
                    if let Some(missed) = view.missed() {
                        bail!("{missed}");
                    }
                    so(&view)
                };
                if let Some(found) = found {
                    return Ok(found);
                }
                view.changed().await.context("the watches have ended")?;
            }
        };
        match timeout(limit, seen).await {
            Ok(result) => result,
            Err(_) => bail!("waited {} s in vain until {what}", limit.as_secs()),
        }
    }
}

/// Records each event when it arrives. A watch that breaks begins again with a list.
async fn follow<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    read: fn(&K) -> Object,
    kind: Kind,
    to: Arc<Sender<View>>,
) {
    let mut listed = Vec::new();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let now = Instant::now();
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => listed.push(read(&object)),
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut listed);
                to.send_modify(|view| view.replace(kind, listed, now));
            }
            Ok(Event::Apply(object)) => {
                let object = read(&object);
                to.send_modify(|view| view.apply(object, now));
            }
            Ok(Event::Delete(object)) => {
                let object = read(&object);
                to.send_modify(|view| view.delete(&object, now));
            }
            // The stream retries at once. The pause prevents too many requests to an API server that does not
            // answer.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

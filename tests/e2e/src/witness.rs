//! An independent watcher of what a Service publishes. It records every state.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, ResourceExt};
use tokio::task::JoinHandle;

use crate::stage::{SHOP, Stage};

/// Watches the slices of a Service by their label, as every consumer does.
pub(crate) struct Witness {
    service: String,
    states: Arc<Mutex<Vec<State>>>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
pub(crate) struct State {
    pub(crate) at: Instant,
    /// Addresses that are ready in the union of all slices.
    pub(crate) ready: BTreeSet<String>,
}

impl Witness {
    /// Starts the watch, and returns once it has seen the current state.
    pub(crate) async fn of(stage: &Stage, service: &str) -> Result<Self> {
        let api = Api::namespaced(stage.client.clone(), SHOP);
        let states = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(watch(api, service.to_owned(), states.clone()));
        let witness = Self { service: service.to_owned(), states, task };
        let seen = async || Ok((!witness.states().is_empty()).then_some(()));
        stage.until("the watcher has seen what is there", seen).await?;
        Ok(witness)
    }

    pub(crate) fn states(&self) -> Vec<State> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn ready(&self) -> BTreeSet<String> {
        self.states().pop().map(|state| state.ready).unwrap_or_default()
    }

    /// Returns the number of states, or an error if one of these addresses was not ready in any of them.
    pub(crate) fn never_missed(&self, addresses: &BTreeSet<String>) -> Result<()> {
        for (n, state) in self.states().iter().enumerate() {
            let missing: Vec<_> = addresses.difference(&state.ready).collect();
            ensure!(missing.is_empty(), "state {n} of Service {} lacks {missing:?}", self.service);
        }
        Ok(())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(api: Api<EndpointSlice>, service: String, states: Arc<Mutex<Vec<State>>>) {
    let label = Config::default().labels(&format!("kubernetes.io/service-name={service}"));
    let mut events = pin!(watcher(api, label).default_backoff());
    let mut slices = BTreeMap::new();
    while let Some(event) = events.next().await {
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
            // The watch lists again, and then delivers the current state.
            Err(_) => continue,
        }
        let state = State { at: Instant::now(), ready: ready(slices.values()) };
        states.lock().unwrap_or_else(PoisonError::into_inner).push(state);
    }
}

fn ready<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> BTreeSet<String> {
    let endpoints = slices.flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|it| it.conditions.as_ref().and_then(|it| it.ready) == Some(true));
    ready.flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect()
}

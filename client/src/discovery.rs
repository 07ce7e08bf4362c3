//! Follows the instances that are published now, for clients that balance their requests themselves.

mod instance;
mod merged_slices;

use std::time::Duration;

use beatkeeper_api::{ServiceRegistration, text::plain_error_chain};
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, Config,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};

use crate::{
    error::Error,
    failure::{Failure, Operation},
    headers::Headers,
    reading::Read,
    timeout::within,
    transport::{self, Source, USER_AGENT},
};
pub use instance::{Change, Instance, Port};
use merged_slices::MergedSlices;

/// The time limit for an answer of the API server.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Looks up the instances of one namespace.
#[derive(Clone)]
pub struct Discovery {
    client: Client,
    namespace: String,
}

impl Discovery {
    /// Looks in the given namespace, or in the namespace of the configuration (the Pod's own, or the
    /// kubeconfig's).
    ///
    /// # Errors
    /// [`Error::NoConfiguration`] and [`Error::Connect`].
    pub async fn new(namespace: Option<String>) -> Result<Self, Error> {
        Self::with_source(Source::infer()?, namespace)
    }

    /// Does the same with a given configuration.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub fn with_config(config: Config, namespace: Option<String>) -> Result<Self, Error> {
        Self::with_source(Source::from(config), namespace)
    }

    fn with_source(source: Source, namespace: Option<String>) -> Result<Self, Error> {
        let namespace = namespace.unwrap_or_else(|| source.namespace().to_owned());
        let client = transport::connect(source, USER_AGENT, &Headers::default())?;
        Ok(Self { client, namespace })
    }

    /// Returns the instances that a registration publishes now, including those that are not ready.
    ///
    /// # Errors
    /// [`Failure`]: the registration does not exist, or the user may not read it. The failure says what to
    /// do.
    pub async fn resolve(&self, registration: &str) -> Result<Vec<Instance>, Failure> {
        let slices = self.slices();
        let params = ListParams::default().labels(&self.selector(registration).await?);
        let object = format!("{}/{registration}", self.namespace);
        let listed = within(ANSWER_WITHIN, slices.list(&params)).await;
        let listed = listed
            .map_err(|late| Failure::timeout(Operation::ListSlices, &object, late))?
            .map_err(|error| Failure::of(Operation::ListSlices, &object, &error))?;
        let mut merged = MergedSlices::default();
        merged.replace(listed.items.into_iter().map(|Read(slice)| slice).collect());
        Ok(merged.instances().cloned().collect())
    }

    /// Follows the instances that a registration publishes: first all existing ones, as created, then every
    /// change. Changes during a lost connection are reported afterwards. A move of an instance from one slice
    /// to another is not reported. The stream never ends.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve), before the stream begins. Later failures are logged with `tracing` and
    /// retried.
    pub async fn watch(
        &self,
        registration: &str,
    ) -> Result<impl Stream<Item = Change> + Send + Unpin + use<>, Failure> {
        let config = watcher::Config::default().labels(&self.selector(registration).await?);
        let events = watcher(self.slices(), config).default_backoff();
        let changes =
            events.scan((MergedSlices::default(), Vec::new()), |(merged, listed), event| {
                let changes = match event {
                    Ok(Event::Init) => {
                        listed.clear();
                        Vec::new()
                    }
                    Ok(Event::InitApply(Read(slice))) => {
                        listed.push(slice);
                        Vec::new()
                    }
                    Ok(Event::InitDone) => merged.replace(std::mem::take(listed)),
                    Ok(Event::Apply(Read(slice))) => merged.put(slice),
                    Ok(Event::Delete(Read(slice))) => merged.remove(&slice),
                    Err(error) => {
                        let error = plain_error_chain(&error);
                        tracing::warn!(
                            error,
                            "the watch of EndpointSlices failed, and begins again"
                        );
                        Vec::new()
                    }
                };
                std::future::ready(Some(stream::iter(changes)))
            });
        Ok(changes.flatten().boxed())
    }

    fn slices(&self) -> Api<Read<EndpointSlice>> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The label selector for the slices of the Service that the registration publishes.
    async fn selector(&self, registration: &str) -> Result<String, Failure> {
        let api =
            Api::<Read<ServiceRegistration>>::namespaced(self.client.clone(), &self.namespace);
        let object = format!("{}/{registration}", self.namespace);
        let found = within(ANSWER_WITHIN, api.get(registration)).await;
        let Read(found) = found
            .map_err(|late| Failure::timeout(Operation::ReadRegistration, &object, late))?
            .map_err(|error| Failure::of(Operation::ReadRegistration, &object, &error))?;
        let service = found.spec.service_name.unwrap_or_else(|| registration.to_owned());
        Ok(format!("kubernetes.io/service-name={service}"))
    }
}

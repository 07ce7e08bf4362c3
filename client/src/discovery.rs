//! Follows the instances that are published now, for clients that balance their requests themselves.

mod table;

use std::{net::IpAddr, time::Duration};

use beatkeeper_api::ServiceRegistration;
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
    failure::{Failure, Operation, chain},
    headers::Headers,
    reading::Read,
    transport::{self, Source, within},
};
use table::Table;

/// The time limit for an answer of the API server.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const USER_AGENT: &str = concat!("beatkeeper-client/", env!("CARGO_PKG_VERSION"));

/// A published instance: one address with its ports.
///
/// An instance with addresses of two IP families is published once for each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The address at which the instance is reached.
    pub address: IpAddr,
    /// The ports of the instance, ordered by number.
    pub ports: Vec<Port>,
    /// Whether the instance accepts new connections.
    pub ready: bool,
    /// Whether the instance serves its existing connections; this can be true while it drains.
    pub serving: bool,
    /// Whether the instance is about to leave.
    pub terminating: bool,
    /// Name of the Pod that the instance runs in.
    pub pod: Option<String>,
    /// Name of the Node that the instance runs on.
    pub node: Option<String>,
    /// Zone of the instance.
    pub zone: Option<String>,
}

/// A port of an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The number.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The name in the registration; empty if the registration has a single port without a name.
    pub name: String,
}

/// A change in the set of published instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The instance is now published.
    Created(Instance),
    /// The instance was published before and has changed: it drains, or cannot serve, or can serve again.
    Updated(Instance),
    /// The instance is not published any more.
    Deleted(Instance),
}

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
        let mut table = Table::default();
        table.replace(listed.items.into_iter().map(|Read(slice)| slice).collect());
        Ok(table.shown().cloned().collect())
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
        let changes = events.scan((Table::default(), Vec::new()), |(table, listed), event| {
            let changes = match event {
                Ok(Event::Init) => {
                    listed.clear();
                    Vec::new()
                }
                Ok(Event::InitApply(Read(slice))) => {
                    listed.push(slice);
                    Vec::new()
                }
                Ok(Event::InitDone) => table.replace(std::mem::take(listed)),
                Ok(Event::Apply(Read(slice))) => table.put(slice),
                Ok(Event::Delete(Read(slice))) => table.remove(&slice),
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(error, "the watch of EndpointSlices failed, and begins again");
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

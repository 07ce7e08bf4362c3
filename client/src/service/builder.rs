//! Describes an instance of a service.

mod gateway;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use beatkeeper_api::duration;
use kube::Config;
use tokio_util::sync::CancellationToken;

use super::{
    hooks::{Check, Hooks, boxed},
    start::Service,
};
use crate::{
    error::{BoxError, Error},
    heartbeat_loop::{BeatOptions, Report},
    lease::{Identity, Location},
    names,
    schedule::INTERVAL_MIN,
};

/// Environment variable with the value for [`Builder::register_ttl`].
pub const TTL_VARIABLE: &str = "BEATKEEPER_REGISTER_TTL";
/// Environment variable with the value for [`Builder::register_interval`].
pub const INTERVAL_VARIABLE: &str = "BEATKEEPER_REGISTER_INTERVAL";

/// Describes one instance of a service. Begin with [`Service::builder`].
#[must_use = "nothing happens before it is built and started"]
pub struct Builder {
    registration: String,
    namespace: Option<String>,
    instance: Option<String>,
    pod: Option<String>,
    addresses: Vec<IpAddr>,
    version: Option<String>,
    metadata: BTreeMap<String, String>,
    ttl: Option<Duration>,
    interval: Option<Duration>,
    check: Option<Check>,
    check_interval: Duration,
    start_timeout: Duration,
    drain_delay: Duration,
    handle_signal: bool,
    own_thread: bool,
    cancellation: CancellationToken,
    config: Option<Config>,
    gateways: Vec<String>,
    gateway_ca_file: Option<PathBuf>,
    gateway_token_file: Option<PathBuf>,
    report: Option<Report>,
    hooks: Hooks,
}

impl Service {
    /// Begins to describe an instance of the service that the ServiceRegistration of this name publishes.
    pub fn builder(registration: impl Into<String>) -> Builder {
        Builder::new(registration)
    }
}

impl Builder {
    fn new(registration: impl Into<String>) -> Self {
        Self {
            registration: registration.into(),
            namespace: None,
            instance: None,
            pod: None,
            addresses: Vec::new(),
            version: None,
            metadata: BTreeMap::new(),
            ttl: None,
            interval: None,
            check: None,
            check_interval: Duration::from_secs(10),
            start_timeout: Duration::from_secs(30),
            drain_delay: Duration::ZERO,
            handle_signal: true,
            own_thread: false,
            cancellation: CancellationToken::new(),
            config: None,
            gateways: Vec::new(),
            gateway_ca_file: None,
            gateway_token_file: None,
            report: None,
            hooks: Hooks::default(),
        }
    }

    /// Namespace of the ServiceRegistration. Default: the Pod's own, or that of the kubeconfig's context.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Name of the instance. Default: the Pod's name, or else the host name in lower case.
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// The Pod that the instance runs in. The address of this Pod is published. Default: `$POD_NAME`. Empty
    /// for an instance outside the cluster, even if that variable is set.
    pub fn pod(mut self, name: impl Into<String>) -> Self {
        self.pod = Some(name.into());
        self
    }

    /// An address of an instance outside the cluster that the registration does not declare. The operator
    /// must allow its range. May be called several times.
    pub fn address(mut self, address: IpAddr) -> Self {
        self.addresses.push(address);
        self
    }

    /// The version of the app in the instance: annotation `beatkeeper.dev/version` of the Lease.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Other data about the instance: annotation `metadata.beatkeeper.dev/<key>` of the Lease.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// The ttl that this service relies on. `spec.ttl` of the ServiceRegistration takes precedence: if it is
    /// shorter, a warning is reported. A value set here overrides `$BEATKEEPER_REGISTER_TTL`.
    pub fn register_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How often to beat. Default: `spec.interval` of the ServiceRegistration, which is followed when it
    /// changes. If `spec.interval` is shorter, it takes precedence, and a warning is reported. Zero: one beat
    /// at the start and none after it, as in go-micro. A value set here overrides
    /// `$BEATKEEPER_REGISTER_INTERVAL`.
    pub fn register_interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// Checks the health of the service, every [`check_interval`](Self::check_interval). After an error the
    /// instance is published as not ready, with the error as its note. Beats continue, because only a dead
    /// instance stops beating. A check that takes longer than the check interval counts as failed.
    pub fn register_check<F, E>(mut self, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.check = Some(Arc::new(move || {
            let outcome = check();
            Box::pin(async move { outcome.await.map_err(Into::into) })
        }));
        self
    }

    /// How often [`register_check`](Self::register_check) is called; at least 100 ms. Default: 10 s.
    pub fn check_interval(mut self, interval: Duration) -> Self {
        self.check_interval = interval;
        self
    }

    /// How long the first beat may take, with retries, before the start fails. Default: 30 s.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// The pause between draining and deregistering at the stop, so that routers notice before the process
    /// ends. Default: 0, which means no draining.
    pub fn drain_delay(mut self, delay: Duration) -> Self {
        self.drain_delay = delay;
        self
    }

    /// Whether [`Service::run`] stops at SIGTERM, SIGINT and SIGQUIT. Default: yes.
    pub fn handle_signal(mut self, handle: bool) -> Self {
        self.handle_signal = handle;
        self
    }

    /// Whether to beat on a thread and runtime of its own, so that a busy or blocked runtime delays no beat.
    /// Default: no; a task of the current runtime beats.
    pub fn own_thread(mut self, own: bool) -> Self {
        self.own_thread = own;
        self
    }

    /// A token that stops [`Service::run`] when it is cancelled.
    pub fn cancellation(mut self, token: CancellationToken) -> Self {
        self.cancellation = token;
        self
    }

    /// How to reach the API server. Default: `$KUBECONFIG`, `~/.kube/config`, or the Pod's ServiceAccount;
    /// all of these are read again when they change. The values of a given configuration stay as they are.
    /// Only the files that it still names are read again: a token, a client certificate, `root_cert_file`.
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// A handler that receives the events, in addition to `tracing`. It is called on a separate thread, one
    /// event after the other. A handler that blocks stops no beats, but it misses further events once 256
    /// events wait.
    pub fn report(mut self, report: Report) -> Self {
        self.report = Some(report);
        self
    }

    /// A hook to run before the first beat. An error aborts the start, and nothing is registered.
    pub fn before_start<F, E>(mut self, hook: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.hooks.before_start.push(boxed(hook));
        self
    }

    /// A hook to run once the first beat is accepted. An error aborts the start, and the service is
    /// deregistered.
    pub fn after_start<F, E>(mut self, hook: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.hooks.after_start.push(boxed(hook));
        self
    }

    /// A hook to run before the service is drained and deregistered. An error stops nothing, and is returned
    /// at the end.
    pub fn before_stop<F, E>(mut self, hook: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.hooks.before_stop.push(boxed(hook));
        self
    }

    /// A hook to run once the service is deregistered. An error stops nothing, and is returned at the end.
    pub fn after_stop<F, E>(mut self, hook: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.hooks.after_stop.push(boxed(hook));
        self
    }

    /// Checks the settings and makes the service.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::AddressOfPod`], [`Error::Environment`], [`Error::TooShort`], [`Error::GatewayUrl`],
    /// [`Error::Gateway`].
    pub fn build(self) -> Result<Service, Error> {
        self.build_with(|variable| std::env::var(variable).ok())
    }

    fn build_with(self, variable: impl Fn(&str) -> Option<String>) -> Result<Service, Error> {
        names::registration(&self.registration)?;
        self.metadata.keys().try_for_each(|key| names::metadata_key(key))?;
        let options = BeatOptions {
            ttl: self.ttl.map_or_else(|| read(TTL_VARIABLE, &variable), |ttl| Ok(Some(ttl)))?,
            interval: self.interval.map_or_else(
                || read(INTERVAL_VARIABLE, &variable),
                |interval| Ok(Some(interval)),
            )?,
            ..BeatOptions::default()
        };
        let short = |span: &Duration| !span.is_zero() && *span < INTERVAL_MIN;
        if let Some(interval) = options.interval.filter(short) {
            return Err(Error::TooShort { what: "register_interval", interval });
        }
        if self.check_interval < INTERVAL_MIN {
            return Err(Error::TooShort { what: "check_interval", interval: self.check_interval });
        }
        let gateway = self.gateway_settings(&variable)?;
        let pod = self.pod.or_else(|| variable("POD_NAME")).filter(|name| !name.is_empty());
        let instance = self.instance.or_else(|| pod.clone()).unwrap_or_else(names::hostname);
        names::instance(&instance)?;
        let home = match pod {
            Some(_) if !self.addresses.is_empty() => return Err(Error::AddressOfPod),
            Some(pod) => Location::Pod(pod),
            None => Location::Outside(self.addresses),
        };
        Ok(Service {
            identity: Identity {
                // Empty until the configuration is read.
                namespace: self.namespace.unwrap_or_default(),
                registration: self.registration,
                instance,
                home,
                version: self.version,
                metadata: self.metadata,
            },
            options,
            check: self.check,
            check_interval: self.check_interval,
            start_timeout: self.start_timeout,
            drain_delay: self.drain_delay,
            handle_signal: self.handle_signal,
            own_thread: self.own_thread,
            cancellation: self.cancellation,
            config: self.config,
            gateway,
            report: self.report,
            hooks: self.hooks,
        })
    }
}

fn read(
    name: &'static str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Duration>, Error> {
    let text = variable(name).filter(|text| !text.is_empty());
    let read = |text: String| {
        duration::parse(&text).map_err(|source| Error::Environment { variable: name, source })
    };
    text.map(read).transpose()
}

#[cfg(test)]
mod tests;

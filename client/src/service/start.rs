//! Starts a service.

use std::{sync::Arc, time::Duration};

use kube::Config;
use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    background::BackgroundThread,
    check,
    hooks::{Check, Hooks, run_hooks},
    reporter::{Counters, reporter},
    runner,
    running::Running,
    signals::Signals,
};
use crate::{
    error::Error,
    gateway::{Gateway, GatewaySettings},
    headers::Headers,
    heartbeat_loop::{BeatOptions, HeartbeatLoop, Report},
    lease::{HealthReport, Identity},
    requests::Connection,
    transport::{self, Source, USER_AGENT},
};

/// One instance of a service, ready to be started.
///
/// ```no_run
/// use std::time::Duration;
/// use beatkeeper_client::Service;
///
/// # async fn example() -> Result<(), beatkeeper_client::Error> {
/// Service::builder("greeter")
///     .register_ttl(Duration::from_secs(30))
///     .register_interval(Duration::from_secs(20))
///     .build()?
///     .run() // until SIGTERM, SIGINT or SIGQUIT; then it deregisters
///     .await
/// # }
/// ```
#[must_use = "it does not beat before it is started"]
pub struct Service {
    pub(crate) identity: Identity,
    pub(crate) options: BeatOptions,
    pub(crate) check: Option<Check>,
    pub(crate) check_interval: Duration,
    pub(crate) start_timeout: Duration,
    pub(crate) drain_delay: Duration,
    pub(crate) handle_signal: bool,
    pub(crate) own_thread: bool,
    pub(crate) cancellation: CancellationToken,
    pub(crate) config: Option<Config>,
    pub(crate) gateway: Option<GatewaySettings>,
    pub(crate) report: Option<Report>,
    pub(crate) hooks: Hooks,
}

impl Service {
    /// Starts, waits for a signal or the cancellation, and stops.
    ///
    /// # Errors
    /// As [`start`](Self::start), and [`Error::Stop`].
    pub async fn run(self) -> Result<(), Error> {
        let cancellation = self.cancellation.clone();
        let handle_signal = self.handle_signal;
        // We listen before everything else: a signal during the start must not kill the process halfway.
        let mut signals = handle_signal.then(Signals::listen).transpose()?;
        let running = self.start().await?;
        let asked = async {
            match &mut signals {
                Some(signals) => signals.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            name = asked => tracing::info!(signal = name, "stopping"),
            () = cancellation.cancelled() => tracing::info!("stopping: cancelled"),
        }
        Ok(running.stop().await?)
    }

    /// Runs the hooks, and beats from now on. Returns when the first beat is accepted.
    ///
    /// # Errors
    /// [`Error::NoConfiguration`] and [`Error::Connect`] if the API server cannot be used; [`Error::Gateway`] if no gateway
    /// is named;
    /// [`Error::NotRegistered`], with the last reason, if no beat is accepted within the start timeout;
    /// [`Error::Hook`]. After an error no Lease remains.
    pub async fn start(self) -> Result<Running, Error> {
        let Hooks { before_start, after_start, before_stop, after_stop } = self.hooks;
        let source = match self.config {
            Some(config) => Source::from(config),
            None => Source::infer()?,
        };
        let mut identity = self.identity;
        if identity.namespace.is_empty() {
            source.namespace().clone_into(&mut identity.namespace);
        }
        run_hooks("before_start", before_start).await?;

        // Before the first check the health is unknown.
        let provisional = self.check.is_some();
        let (health, heard) =
            watch::channel(HealthReport { provisional, ..HealthReport::default() });
        let stats = Arc::new(Counters::default());
        let background = Arc::new(BackgroundThread::new());
        let report = reporter(self.report, Arc::clone(&stats), Arc::clone(&background));
        let (options, gateway, stop) = (self.options, self.gateway, CancellationToken::new());
        let begin = move || {
            let headers = Headers::default();
            let client = transport::connect(source, USER_AGENT, &headers)?;
            let gateway = gateway.map(|settings| Gateway::open(&settings, USER_AGENT));
            let connection = Connection { client, headers, gateway: gateway.transpose()? };
            Ok::<_, Error>(HeartbeatLoop::new(connection, identity, options, heard, report))
        };
        let (runner, mut progress) = if self.own_thread {
            runner::on_a_thread(begin, stop).await?
        } else {
            runner::on_this_runtime(begin, stop)?
        };
        let registered = progress.wait_for(|now| now.reported.is_some());
        let registered =
            timeout(self.start_timeout, registered).await.is_ok_and(|reported| reported.is_ok());
        if !registered {
            let failure = progress.borrow().failure.clone();
            // A beat that was sent may have been accepted although its answer was lost.
            let _ = runner.stop().await;
            return Err(Error::NotRegistered { within: self.start_timeout, failure });
        }
        if let Err(error) = run_hooks("after_start", after_start).await {
            let _ = runner.stop().await;
            return Err(error);
        }
        let health = Arc::new(health);
        let checking = self.check.map(|check| {
            let checking = check::run(check, self.check_interval, Arc::clone(&health));
            AbortOnDropHandle::new(tokio::spawn(checking))
        });
        let drain_delay = self.drain_delay;
        Ok(Running {
            runner,
            health,
            progress,
            stats,
            background,
            checking,
            drain_delay,
            before_stop,
            after_stop,
        })
    }
}

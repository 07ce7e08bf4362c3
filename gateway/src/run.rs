//! A gateway, from its start to its end.

use std::{future::Future, io, net::SocketAddr, rc::Rc, time::Duration};

use beatkeeper_core::carriers::frames::Incarnation;
use rustls::pki_types::ServerName;
use tokio::{
    net::TcpListener,
    task::{JoinError, JoinSet, LocalSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    clock::Clock,
    gateway::Hub,
    http::{answer::App, listener, proofs::Proofs},
    identity::{
        authenticator::{Authenticator, Way},
        claims::Expected,
    },
    metrics::Metrics,
    prove,
    settings::Settings,
    streams::accept,
    tls::{self, ServerTls, TlsError},
    validity::Validity,
};

/// How long the last answers and frames may take.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A gateway cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It cannot listen.
    #[error("cannot listen on {address} for {what}: {cause}")]
    Listen {
        /// What the port is for.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// Its certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The machine gives no random numbers.
    #[error("cannot draw random numbers: {0}")]
    Random(#[from] rustls::Error),
    /// A part that never ends has ended.
    #[error("a part of the gateway has ended: {0}")]
    Ended(#[from] JoinError),
    /// A part that never ends has ended without a reason.
    #[error("a part of the gateway has ended")]
    EndedEarly,
}

/// What a gateway uses of its cluster.
pub struct Ports {
    /// How tokens are checked.
    pub tokens: Way,
    /// What tokens have to say.
    pub expected: Expected,
}

/// Runs a future on the one thread of a gateway.
///
/// # Errors
/// The runtime cannot be made.
pub fn on_this_thread<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(LocalSet::new().block_on(&runtime, future))
}

/// Runs a gateway until `stop` is cancelled, and then for the time of [`Settings::drain`]. Has to be called in a
/// [`LocalSet`] ([`on_this_thread`]).
///
/// # Errors
/// [`RunError`].
pub async fn run(
    settings: Settings,
    ports: Ports,
    stop: CancellationToken,
) -> Result<(), RunError> {
    Bound::bind(settings).await?.run(ports, stop).await
}

/// A gateway that listens, and answers nothing yet.
pub struct Bound {
    settings: Settings,
    beats: TcpListener,
    streams: TcpListener,
    admin: TcpListener,
    addresses: Addresses,
    metrics: Rc<Metrics>,
    beats_tls: Rc<ServerTls>,
    streams_tls: Rc<ServerTls>,
    peer: ServerName<'static>,
}

/// Where a gateway listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// For instances.
    pub beats: SocketAddr,
    /// For replicas.
    pub streams: SocketAddr,
    /// For health and metrics.
    pub admin: SocketAddr,
}

/// What a gateway shows to instances and to replicas, as its files were read last.
pub struct Certificates([Rc<ServerTls>; 2]);

impl Certificates {
    /// From when until when the one counts that expires first.
    pub fn first_to_expire(&self) -> Option<Validity> {
        let all = self.0.iter().filter_map(|tls| Validity::of(&tls.certificate()).ok());
        all.min_by_key(|validity| validity.until)
    }
}

async fn listen(
    what: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), RunError> {
    let failed = |cause| RunError::Listen { what, address, cause };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

impl Bound {
    /// Listens.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn bind(settings: Settings) -> Result<Self, RunError> {
        let beats_tls = Rc::new(ServerTls::beats(settings.certificate.clone()).await?);
        let streams_tls = Rc::new(ServerTls::streams(settings.stream_certificate.clone()).await?);
        let peer = tls::peer_name(&settings.stream_certificate.peer)?;
        let (beats, at_beats) = listen("beats", settings.beats).await?;
        let (streams, at_streams) = listen("streams", settings.streams).await?;
        let (admin, at_admin) = listen("health and metrics", settings.admin).await?;
        let addresses = Addresses { beats: at_beats, streams: at_streams, admin: at_admin };
        tracing::info!(?addresses, "listening");
        let metrics = Rc::default();
        Ok(Self {
            settings,
            beats,
            streams,
            admin,
            addresses,
            metrics,
            beats_tls,
            streams_tls,
            peer,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The certificates that it shows.
    pub fn certificates(&self) -> Certificates {
        Certificates([self.beats_tls.clone(), self.streams_tls.clone()])
    }

    /// The address at which instances reach this gateway, for its own beats (G3).
    #[must_use]
    pub fn published_at(mut self, address: SocketAddr) -> Self {
        self.settings.published = Some(address);
        self
    }

    /// Answers for its health while something else is awaited that has to be known first, and why it is not ready.
    pub async fn not_ready_until<T>(&self, known: impl Future<Output = T>, why: &'static str) -> T {
        let mut known = std::pin::pin!(known);
        loop {
            tokio::select! {
                value = known.as_mut() => return value,
                () = admin::serve_not_ready(&self.admin, self.metrics.clone(), why) => {}
            }
        }
    }

    /// Answers until `stop` is cancelled, and drains.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn run(self, ports: Ports, stop: CancellationToken) -> Result<(), RunError> {
        let settings = self.settings;
        let clock = Clock::start();
        // A process that restarts in its Pod has to have another epoch, also if its clock stands still.
        let epoch = u64::from_le_bytes(tls::random()?);
        let me = Incarnation { pod: settings.pod.as_str().into(), epoch };
        let limits = settings.stream_limits.clone();
        let metrics = self.metrics;
        let hub = Hub::new(me, settings.lease_duration, limits.clone(), clock, metrics.clone());
        let hub = Rc::new(hub);
        let authenticator = Authenticator::new(ports.tokens, ports.expected, clock);
        let proofs = Proofs::new(tls::random()?);
        let app = Rc::new(App::new(hub.clone(), authenticator, settings.limits.clone(), proofs));
        let published = settings.published.unwrap_or(self.addresses.beats);

        let mut parts = JoinSet::new();
        let (beats_tls, streams_tls) = (self.beats_tls, self.streams_tls);
        parts.spawn_local(keep_time(hub.clone()));
        parts.spawn_local(listener::serve(app.clone(), self.beats, beats_tls.clone()));
        let streams =
            accept::serve(hub.clone(), self.streams, streams_tls.clone(), limits, self.peer);
        parts.spawn_local(streams);
        parts.spawn_local(admin::serve(app.clone(), self.admin));
        parts.spawn_local(prove::prove(app.clone(), published, beats_tls.clone()));
        parts.spawn_local(follow_keys(app.clone()));
        parts.spawn_local(follow_files(beats_tls, streams_tls, settings.reread, metrics));
        serve(parts, &app, settings.drain, stop).await
    }
}

/// Serves until `stop` is cancelled, and drains.
async fn serve(
    mut parts: JoinSet<()>,
    app: &App,
    drain: Duration,
    stop: CancellationToken,
) -> Result<(), RunError> {
    tokio::select! {
        () = stop.cancelled() => {}
        ended = parts.join_next() => return Err(end_of(ended)),
    }
    tracing::info!(?drain, "ending: each answer is the last one on its connection");
    app.drain();
    tokio::select! {
        () = sleep(drain) => {}
        ended = parts.join_next() => return Err(end_of(ended)),
    }
    app.hub.leave();
    sleep(LAST_WORDS).await;
    Ok(())
}

fn end_of(ended: Option<Result<(), JoinError>>) -> RunError {
    match ended {
        Some(Err(error)) => error.into(),
        _ => RunError::EndedEarly,
    }
}

async fn keep_time(hub: Rc<Hub>) {
    hub.keep_time().await;
}

async fn follow_keys(app: Rc<App>) {
    app.authenticator.follow_keys().await;
}

/// Reads the certificates again and again. What cannot be used changes nothing, and is logged once.
async fn follow_files(
    beats: Rc<ServerTls>,
    streams: Rc<ServerTls>,
    often: Duration,
    metrics: Rc<Metrics>,
) {
    let mut told = [String::new(), String::new()];
    loop {
        for (name, tls) in [("beats", &beats), ("streams", &streams)] {
            if let Ok(validity) = Validity::of(&tls.certificate()) {
                metrics.certificate_expires(name, validity.until);
            }
        }
        sleep(often).await;
        for (tls, told) in [&beats, &streams].into_iter().zip(&mut told) {
            let problem = match tls.reread().await {
                Ok(true) => {
                    tracing::info!("there is a new certificate");
                    String::new()
                }
                Ok(false) => String::new(),
                Err(error) => error.to_string(),
            };
            if !problem.is_empty() && problem != *told {
                tracing::warn!(error = problem, "a certificate stays as it was");
            }
            *told = problem;
        }
    }
}

//! Keeps the connection to the API server in line with its description. It reads the description again and
//! fetches credentials, in parallel to the requests. Requests wait for neither while they have a usable route
//! and credential.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use hyper_util::rt::TokioIo;
use kube::{client::ConfigExt, config::AuthInfo};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinError,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    background_connector::BackgroundConnector,
    connector::{Connector, pool},
    dial::Resolver,
    error::ConnectError,
    redacted,
    route::Route,
    signer::{CredentialError, Signer, SignerChange, SignerEvent},
    source::{Settings, Source},
    stream::Stream,
    upstream::{Http, ManagerMessage, ManagerSender, Upstream, UpstreamState},
};

/// How often files are read again without a reason.
const READ_EVERY: Duration = Duration::from_secs(10);
/// How often files are read again at most if there is a reason.
const READ_AT_MOST_EVERY: Duration = Duration::from_millis(250);

type Done = oneshot::Sender<()>;
/// A refused credential, and the request that waits for another.
type Refused = (Option<HeaderValue>, Done);
type Read = Result<Box<Settings>, ConnectError>;
type Reading = AbortOnDropHandle<Read>;

pub(super) struct ConnectionManager {
    source: Source,
    user_agent: HeaderValue,
    settings: Settings,
    signer: Signer,
    previous: Option<PreviousCredential>,
    connector: Connector,
    connections: BackgroundConnector<TokioIo<Stream>>,
    http: Http,
    pool: u64,
    state: watch::Sender<UpstreamState>,
    /// Whether the content of the source can change at all.
    changes: bool,
    /// When the source was last read, when the next read is due, and whether there is a reason to read
    /// sooner.
    read: Instant,
    read_in: Duration,
    reread: bool,
    /// The reported failure of the last read: the same one is not reported again.
    reported: Option<String>,
    /// The requests that wait for the next read.
    waiting: Vec<Done>,
    /// The credentials that were refused since the last read began.
    refused: Vec<Refused>,
    reading: Option<(Reading, Vec<Done>, Vec<Refused>)>,
}

/// The previous credential. It signs requests while the new description has brought no credential yet. It is
/// used until the new description brings one, or the API server refuses the previous one.
struct PreviousCredential {
    /// This signer fetches nothing any more.
    signer: Signer,
    auth: AuthInfo,
    /// Why there is no other credential.
    error: Option<Arc<CredentialError>>,
}

/// What can happen.
enum ManagerEvent {
    Message(Option<ManagerMessage>),
    ReadDue,
    Read(Result<Read, JoinError>),
    Signer(SignerEvent),
}

impl ConnectionManager {
    /// Reads the source for the first time.
    pub(super) fn new(
        source: Source,
        user_agent: HeaderValue,
        resolver: Resolver,
        sender: ManagerSender,
    ) -> Result<(Self, watch::Receiver<UpstreamState>), ConnectError> {
        let settings = source.read(&user_agent)?;
        let signer = Signer::of(&settings)?;
        let connector = Connector::new(settings.route(None)?, resolver, sender);
        let connections = connector.connections();
        let (state, watched) = watch::channel(UpstreamState::Pending);
        let manager = Self {
            changes: source.changes(),
            source,
            user_agent,
            settings,
            signer,
            previous: None,
            connector,
            http: pool(&connections),
            connections,
            pool: 0,
            state,
            read: Instant::now(),
            read_in: read_in(),
            reread: false,
            reported: None,
            waiting: Vec::new(),
            refused: Vec::new(),
            reading: None,
        };
        manager.publish()?;
        Ok((manager, watched))
    }

    pub(super) async fn run(mut self, mut messages: mpsc::UnboundedReceiver<ManagerMessage>) {
        loop {
            let due = self.read + if self.reread { READ_AT_MOST_EVERY } else { self.read_in };
            let event = tokio::select! {
                message = messages.recv() => ManagerEvent::Message(message),
                read = end_of(&mut self.reading) => ManagerEvent::Read(read),
                () = sleep_until(due), if self.reading.is_none() && (self.reread || self.changes) => {
                    ManagerEvent::ReadDue
                }
                event = self.signer.event() => ManagerEvent::Signer(event),
            };
            match event {
                ManagerEvent::Message(None) => return,
                ManagerEvent::Message(Some(message)) => self.receive(message),
                ManagerEvent::ReadDue => self.begin_to_read(),
                ManagerEvent::Read(read) => self.end_read(read),
                ManagerEvent::Signer(event) => {
                    if let Err(error) = self.update_signer(event) {
                        tracing::warn!("{error}");
                    }
                }
            }
        }
    }

    fn receive(&mut self, message: ManagerMessage) {
        match message {
            ManagerMessage::Reread(done) => {
                self.reread = true;
                self.waiting.extend(done);
            }
            ManagerMessage::Refused(what, done) => {
                self.reread = true;
                self.refused.push((what, done));
            }
            ManagerMessage::Silent(pool) if pool == self.pool => {
                // The connections that are being made stay: no request was sent over them yet.
                self.renew_pool();
                let _ = self.publish();
            }
            ManagerMessage::Leave(address) => {
                self.connector.leave(address);
                // Those that are being made may lead to the address that is left.
                self.connections = self.connector.connections();
                self.renew_pool();
                let _ = self.publish();
            }
            ManagerMessage::Silent(_) => {}
        }
    }

    fn begin_to_read(&mut self) {
        self.read = Instant::now();
        self.read_in = read_in();
        self.reread = false;
        let (source, user_agent) = (self.source.clone(), self.user_agent.clone());
        let reading = tokio::task::spawn_blocking(move || source.read(&user_agent).map(Box::new));
        let (waiting, refused) =
            (std::mem::take(&mut self.waiting), std::mem::take(&mut self.refused));
        self.reading = Some((AbortOnDropHandle::new(reading), waiting, refused));
    }

    fn end_read(&mut self, read: Result<Read, JoinError>) {
        let waited = self.reading.take().map(|(_, done, refused)| (done, refused));
        let (done, refused) = waited.unwrap_or_default();
        let applied = read.ok().map(|read| read.and_then(|new| self.apply(*new)));
        let failed = applied.and_then(Result::err).map(|error| error.to_string());
        if let Some(error) = failed.as_ref().filter(|_| failed != self.reported) {
            tracing::warn!("{error}; continuing with the description that was read before");
        }
        self.reported = failed;
        // If the description is unchanged, fetching may still bring another credential.
        let refused = refused.into_iter();
        let fixed = refused.filter_map(|refused| self.refused(refused));
        for one in done.into_iter().chain(fixed) {
            let _ = one.send(());
        }
    }

    /// The signer that currently signs requests.
    fn in_use(&self) -> &Signer {
        self.previous.as_ref().map_or(&self.signer, |previous| &previous.signer)
    }

    /// Applies the settings that were read, if they differ from the current ones.
    fn apply(&mut self, settings: Settings) -> Result<(), ConnectError> {
        let (old, new) = (&self.settings, &settings);
        let signer = (old.signature != new.signature).then(|| Signer::of(new)).transpose()?;
        if signer.is_none() && old.route == new.route {
            return Ok(());
        }
        let next = signer.as_ref().unwrap_or(&self.signer);
        let ready = next.authorization().is_some();
        // A credential for one server must not be sent to another.
        let keeps = !ready && old.config.cluster_url == new.config.cluster_url;
        let kept = if keeps { self.route_of_previous(new) } else { None };
        let (keeps, rerouted) = (kept.is_some(), old.route != new.route);
        let own = || rerouted.then(|| new.route(next.credential()));
        let route = kept.map(Ok).or_else(own).transpose()?;
        let server = redacted::url(&settings.config.cluster_url);
        tracing::info!("the description of {server} has changed: connecting by it from now on");
        let before = std::mem::replace(&mut self.settings, settings).config.auth_info;
        let signer = signer.map(|signer| std::mem::replace(&mut self.signer, signer));
        let previous =
            signer.map(|signer| PreviousCredential { signer, auth: before, error: None });
        self.previous = self.previous.take().or(previous).filter(|_| keeps);
        if let Some(route) = route {
            self.reroute(route);
        }
        if !ready && !keeps {
            self.state.send_replace(UpstreamState::Pending);
        }
        self.publish()
    }

    /// Returns the new route to the server with the previous credential, if there is one.
    fn route_of_previous(&self, new: &Settings) -> Option<Route> {
        let (previous, in_use) = (self.previous.as_ref(), self.in_use());
        in_use.authorization()?;
        let mut config = new.config.clone();
        let auth = previous.map_or(&self.settings.config.auth_info, |previous| &previous.auth);
        config.auth_info = auth.clone();
        Route::of(&config, new.proxy.as_ref(), in_use.credential()).ok()
    }

    /// Handles a credential that the API server does not accept. Returns the sender of the request if nothing
    /// has to be fetched.
    fn refused(&mut self, (what, done): Refused) -> Option<Done> {
        let is_it = |previous: &mut PreviousCredential| {
            previous.signer.authorization() == Some(what.clone())
        };
        if let Some(PreviousCredential { error, .. }) = self.previous.take_if(is_it) {
            tracing::warn!("the server refuses the previous credential, and there is no other yet");
            let failed = error.map(UpstreamState::Failed);
            self.state.send_replace(failed.unwrap_or(UpstreamState::Pending));
            if let Ok(route) = self.settings.route(self.signer.credential()) {
                self.reroute(route);
            }
        }
        self.signer.refused(what.as_ref(), done)
    }

    fn update_signer(&mut self, event: SignerEvent) -> Result<(), ConnectError> {
        match self.signer.handle(event) {
            SignerChange::Nothing => Ok(()),
            SignerChange::New => {
                let credential = self.signer.credential();
                if self.previous.is_some() || credential.is_some_and(|one| one.identity.is_some()) {
                    let route = self.settings.route(credential)?;
                    self.previous = None;
                    self.reroute(route);
                }
                self.publish()
            }
            SignerChange::Failed(error) => {
                self.fetch_failed(Arc::new(error));
                Ok(())
            }
        }
    }

    /// Handles a fetch that brought no credential. If there is another credential, requests continue to use
    /// it.
    fn fetch_failed(&mut self, error: Arc<CredentialError>) {
        if matches!(*self.state.borrow(), UpstreamState::Open(_)) {
            tracing::warn!(
                "{error}; continuing with the previous credential until the server refuses it"
            );
            if let Some(previous) = &mut self.previous {
                previous.error = Some(error);
            }
        } else {
            tracing::warn!("{error}");
            self.state.send_replace(UpstreamState::Failed(error));
        }
    }

    /// Opens new connections for a new route: those of the old route use an expired certificate, or trust one
    /// that is no longer trusted.
    fn reroute(&mut self, route: Route) {
        self.connector.set_route(route);
        self.connections = self.connector.connections();
        self.renew_pool();
    }

    fn renew_pool(&mut self) {
        self.pool += 1;
        self.http = pool(&self.connections);
    }

    /// Publishes nothing while there is no first credential.
    fn publish(&self) -> Result<(), ConnectError> {
        let Some(authorization) = self.in_use().authorization() else { return Ok(()) };
        let config = &self.settings.config;
        let upstream = Upstream {
            http: self.http.clone(),
            pool: self.pool,
            base: config.base_uri_layer(),
            headers: config.extra_headers_layer()?,
            authorization,
        };
        self.state.send_replace(UpstreamState::Open(Arc::new(upstream)));
        Ok(())
    }
}

/// Returns the pause before the next read, with jitter, so that processes that were started together do not
/// read at one moment.
fn read_in() -> Duration {
    READ_EVERY.mul_f64(0.8 + 0.2 * rand::random::<f64>())
}

async fn end_of(
    reading: &mut Option<(Reading, Vec<Done>, Vec<Refused>)>,
) -> Result<Read, JoinError> {
    match reading {
        Some((reading, ..)) => reading.await,
        None => std::future::pending().await,
    }
}

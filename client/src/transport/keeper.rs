//! Keeps the connection to the API server in line with its description. It reads the description again and
//! fetches credentials, in parallel to the requests. Requests wait for neither while they have a usable route
//! and credential.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::FutureExt;
use http::HeaderValue;
use hyper_util::{
    client::legacy::Client as HttpClient,
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use kube::{client::ConfigExt, config::AuthInfo};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinError,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    ConnectError,
    access::{Call, Http, Link, Standing},
    dial::{Dialer, Resolver},
    persist::Persistent,
    route::{Refusal, Route},
    signer::{self, Outcome, Signer},
    source::{Settings, Source},
    stream::Stream,
};
use crate::error::BoxError;

/// How often files are read again without a reason.
const READ_EVERY: Duration = Duration::from_secs(10);
/// How often files are read again at most if there is a reason.
const READ_AT_MOST_EVERY: Duration = Duration::from_millis(250);
/// How long a failed handshake waits for other files.
const OTHERS_WITHIN: Duration = Duration::from_secs(2);
/// The API server closes a connection that was idle for 90 s (its setting of IdleTimeout in net/http). We
/// close it a little earlier: a request that crosses the server's close would fail.
const POOL_IDLE: Duration = Duration::from_secs(80);
/// The maximum number of idle connections, which is the number of GETs that are ever sent in parallel.
const POOL_SIZE: usize = 64;

type Calls = mpsc::UnboundedSender<Call>;
type Done = oneshot::Sender<()>;
/// A refused credential, and the request that waits for another.
type Refused = (Option<HeaderValue>, Done);
type Read = Result<Box<Settings>, ConnectError>;
type Reading = AbortOnDropHandle<Read>;

/// The current route, for connections that are being made.
type Latest = Arc<RwLock<Arc<Route>>>;

pub(super) struct Keeper {
    source: Source,
    user_agent: HeaderValue,
    settings: Settings,
    signer: Signer,
    former: Option<Former>,
    connector: Connector,
    connections: Persistent<TokioIo<Stream>>,
    http: Http,
    pool: u64,
    standing: watch::Sender<Standing>,
    /// Whether the content of the source can change at all.
    changes: bool,
    /// When the source was last read, when the next read is due, and whether there is a reason to read
    /// sooner.
    read: Instant,
    read_in: Duration,
    reread: bool,
    /// Why the last read failed; reported once.
    complaint: Option<String>,
    /// The requests that wait for the next read.
    waiting: Vec<Done>,
    /// The credentials that were refused since the last read began.
    refused: Vec<Refused>,
    reading: Option<(Reading, Vec<Done>, Vec<Refused>)>,
}

/// The former credential. It signs requests while the new description has brought no credential yet. It is
/// used until the new description brings one, or the API server refuses the former one.
struct Former {
    /// This signer fetches nothing any more.
    signer: Signer,
    auth: AuthInfo,
    /// Why there is no other credential.
    why: Option<String>,
}

/// What can happen.
enum News {
    Call(Option<Call>),
    ReadDue,
    Read(Result<Read, JoinError>),
    Signer(signer::News),
}

impl Keeper {
    /// Reads the source for the first time.
    pub(super) fn new(
        source: Source,
        user_agent: HeaderValue,
        resolver: Resolver,
        calls: Calls,
    ) -> Result<(Self, watch::Receiver<Standing>), ConnectError> {
        let settings = source.read(&user_agent)?;
        let signer = Signer::of(&settings)?;
        let latest = Arc::new(RwLock::new(Arc::new(settings.route(None)?)));
        let connector = Connector { latest, dialer: Arc::new(Dialer::new(resolver)), calls };
        let connections = connector.connections();
        let (standing, watched) = watch::channel(Standing::Pending);
        let keeper = Self {
            changes: source.changes(),
            source,
            user_agent,
            settings,
            signer,
            former: None,
            connector,
            http: pool(&connections),
            connections,
            pool: 0,
            standing,
            read: Instant::now(),
            read_in: read_in(),
            reread: false,
            complaint: None,
            waiting: Vec::new(),
            refused: Vec::new(),
            reading: None,
        };
        keeper.publish()?;
        Ok((keeper, watched))
    }

    pub(super) async fn run(mut self, mut calls: mpsc::UnboundedReceiver<Call>) {
        loop {
            let due = self.read + if self.reread { READ_AT_MOST_EVERY } else { self.read_in };
            let news = tokio::select! {
                call = calls.recv() => News::Call(call),
                read = end_of(&mut self.reading) => News::Read(read),
                () = sleep_until(due), if self.reading.is_none() && (self.reread || self.changes) => {
                    News::ReadDue
                }
                news = self.signer.news() => News::Signer(news),
            };
            match news {
                News::Call(None) => return,
                News::Call(Some(call)) => self.hear(call),
                News::ReadDue => self.begin_to_read(),
                News::Read(read) => {
                    let waited = self.reading.take().map(|(_, done, refused)| (done, refused));
                    let (done, refused) = waited.unwrap_or_default();
                    let followed = read.ok().map(|read| read.and_then(|new| self.follow(*new)));
                    let failed = followed.and_then(Result::err).map(|error| error.to_string());
                    if let Some(error) = failed.as_ref().filter(|_| failed != self.complaint) {
                        tracing::warn!("{error}; going on by what was read before");
                    }
                    self.complaint = failed;
                    // If the description is unchanged, fetching may still bring another credential.
                    let refused = refused.into_iter();
                    let fixed = refused.filter_map(|refused| self.refused(refused));
                    for one in done.into_iter().chain(fixed) {
                        let _ = one.send(());
                    }
                }
                News::Signer(news) => {
                    if let Err(error) = self.signed(news) {
                        tracing::warn!("{error}");
                    }
                }
            }
        }
    }

    fn hear(&mut self, call: Call) {
        match call {
            Call::Reread(done) => {
                self.reread = true;
                self.waiting.extend(done);
            }
            Call::Refused(what, done) => {
                self.reread = true;
                self.refused.push((what, done));
            }
            Call::Silent(pool) if pool == self.pool => {
                // The connections that are being made stay: no request was sent over them yet.
                self.renew_pool();
                let _ = self.publish();
            }
            Call::Silent(_) => {}
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

    /// The signer that currently signs requests.
    fn in_use(&self) -> &Signer {
        self.former.as_ref().map_or(&self.signer, |former| &former.signer)
    }

    /// Applies the settings that were read, if they differ from the current ones.
    fn follow(&mut self, settings: Settings) -> Result<(), ConnectError> {
        let (old, new) = (&self.settings, &settings);
        let signer = (old.signature != new.signature).then(|| Signer::of(new)).transpose()?;
        if signer.is_none() && old.route == new.route {
            return Ok(());
        }
        let next = signer.as_ref().unwrap_or(&self.signer);
        let ready = next.authorization().is_some();
        // A credential for one server must not be sent to another.
        let keeps = !ready && old.config.cluster_url == new.config.cluster_url;
        let kept = if keeps { self.route_of_former(new) } else { None };
        let (keeps, rerouted) = (kept.is_some(), old.route != new.route);
        let own = || rerouted.then(|| new.route(next.credential()));
        let route = kept.map(Ok).or_else(own).transpose()?;
        tracing::info!("what says how the API server is reached has changed, and is followed");
        let before = std::mem::replace(&mut self.settings, settings).config.auth_info;
        let signer = signer.map(|signer| std::mem::replace(&mut self.signer, signer));
        let former = signer.map(|signer| Former { signer, auth: before, why: None });
        self.former = self.former.take().or(former).filter(|_| keeps);
        if let Some(route) = route {
            self.reroute(route);
        }
        if !ready && !keeps {
            self.standing.send_replace(Standing::Pending);
        }
        self.publish()
    }

    /// Returns the new route to the server with the former credential, if there is one.
    fn route_of_former(&self, new: &Settings) -> Option<Route> {
        let (former, in_use) = (self.former.as_ref(), self.in_use());
        in_use.authorization()?;
        let mut config = new.config.clone();
        let auth = former.map_or(&self.settings.config.auth_info, |former| &former.auth);
        config.auth_info = auth.clone();
        Route::of(&config, new.proxy.as_ref(), in_use.credential()).ok()
    }

    /// Handles a credential that the API server does not accept. Returns the sender of the request if nothing
    /// has to be fetched.
    fn refused(&mut self, (what, done): Refused) -> Option<Done> {
        let is_it = |former: &mut Former| former.signer.authorization() == Some(what.clone());
        if let Some(Former { why, .. }) = self.former.take_if(is_it) {
            tracing::warn!(
                "the API server refuses the credential of before, and there is no other yet"
            );
            let failed = why.map(|why| Standing::Failed(why.into()));
            self.standing.send_replace(failed.unwrap_or(Standing::Pending));
            if let Ok(route) = self.settings.route(self.signer.credential()) {
                self.reroute(route);
            }
        }
        self.signer.refused(what.as_ref(), done)
    }

    fn signed(&mut self, news: signer::News) -> Result<(), ConnectError> {
        match self.signer.take(news) {
            Outcome::Nothing => Ok(()),
            Outcome::New => {
                let credential = self.signer.credential();
                if self.former.is_some() || credential.is_some_and(|one| one.identity.is_some()) {
                    let route = self.settings.route(credential)?;
                    self.former = None;
                    self.reroute(route);
                }
                self.publish()
            }
            Outcome::Failed(why) => {
                self.failed(why);
                Ok(())
            }
        }
    }

    /// Handles a fetch that brought no credential. If there is another credential, requests continue to use
    /// it.
    fn failed(&mut self, why: String) {
        if matches!(*self.standing.borrow(), Standing::Open(_)) {
            tracing::warn!(
                "{why}; going on with the credential of before until the API server refuses it"
            );
            if let Some(former) = &mut self.former {
                former.why = Some(why);
            }
        } else {
            tracing::warn!("{why}");
            self.standing.send_replace(Standing::Failed(why.into()));
        }
    }

    /// Opens new connections for a new route: those of the old route use an expired certificate, or trust one
    /// that is no longer trusted.
    fn reroute(&mut self, route: Route) {
        let mut latest = self.connector.latest.write().unwrap_or_else(PoisonError::into_inner);
        *latest = Arc::new(route);
        drop(latest);
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
        let link = Link {
            http: self.http.clone(),
            pool: self.pool,
            base: config.base_uri_layer(),
            headers: config.extra_headers_layer()?,
            authorization,
        };
        self.standing.send_replace(Standing::Open(Arc::new(link)));
        Ok(())
    }
}

/// Returns the pause before the next read, with jitter, so that processes that were started together do not
/// read at one moment.
fn read_in() -> Duration {
    READ_EVERY.mul_f64(0.8 + 0.2 * rand::random::<f64>())
}

fn pool(connections: &Persistent<TokioIo<Stream>>) -> Http {
    HttpClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_SIZE)
        .build(connections.clone())
}

async fn end_of(
    reading: &mut Option<(Reading, Vec<Done>, Vec<Refused>)>,
) -> Result<Read, JoinError> {
    match reading {
        Some((reading, ..)) => reading.await,
        None => std::future::pending().await,
    }
}

/// Makes connections by the current route.
#[derive(Clone)]
struct Connector {
    latest: Latest,
    dialer: Arc<Dialer>,
    calls: Calls,
}

impl Connector {
    fn connections(&self) -> Persistent<TokioIo<Stream>> {
        let this = self.clone();
        Persistent::new(Arc::new(move || {
            let this = this.clone();
            async move { this.connect().await }.boxed()
        }))
    }

    fn latest(&self) -> Arc<Route> {
        Arc::clone(&self.latest.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn connect(&self) -> Result<TokioIo<Stream>, BoxError> {
        let route = self.latest();
        let (host, port) = route.first();
        let attempt = |address| self.attempt(Arc::clone(&route), address);
        Ok(TokioIo::new(self.dialer.reach(host, port, attempt).await?))
    }

    /// If the certificate is not accepted, the files may have another one by now.
    async fn attempt(&self, route: Arc<Route>, address: SocketAddr) -> Result<Stream, BoxError> {
        match route.connect(address).await {
            Err(Refusal::Tls(error)) => {
                let (done, reread) = oneshot::channel();
                let _ = self.calls.send(Call::Reread(Some(done)));
                let _ = timeout(OTHERS_WITHIN, reread).await;
                let other = self.latest();
                if Arc::ptr_eq(&other, &route) {
                    return Err(Refusal::Tls(error).into());
                }
                Ok(other.connect(address).await?)
            }
            made => Ok(made?),
        }
    }
}

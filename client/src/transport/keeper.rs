//! Keeps the way to the API server as its description says: reads that again, and fetches credentials, beside the
//! requests, which never wait for either while they have something to go by.

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

/// Files are read again so often without any reason.
const READ_EVERY: Duration = Duration::from_secs(10);
/// And at most so often with one.
const READ_AT_MOST_EVERY: Duration = Duration::from_millis(250);
/// How long a handshake that failed waits for other files.
const OTHERS_WITHIN: Duration = Duration::from_secs(2);
/// The API server closes a connection that was idle for 90 s (net/http's IdleTimeout as it sets it).
/// We let go a little earlier: a request that crosses the server's close would fail.
const POOL_IDLE: Duration = Duration::from_secs(80);
/// As many idle connections are kept as GETs are ever sent side by side.
const POOL_SIZE: usize = 64;

type Calls = mpsc::UnboundedSender<Call>;
type Done = oneshot::Sender<()>;
/// A refused credential, and the request that waits for another.
type Refused = (Option<HeaderValue>, Done);
type Read = Result<Box<Settings>, ConnectError>;
type Reading = AbortOnDropHandle<Read>;

/// The route of the moment, for connections that are being made.
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
    /// Whether what the source says may change at all.
    changes: bool,
    /// When it was read last, when that is due again, and whether there is a reason not to wait until then.
    read: Instant,
    read_in: Duration,
    reread: bool,
    /// Why the last read failed: reported once.
    complaint: Option<String>,
    /// The requests that wait for the next read.
    waiting: Vec<Done>,
    /// What was refused since the last reading began.
    refused: Vec<Refused>,
    reading: Option<(Reading, Vec<Done>, Vec<Refused>)>,
}

/// What requests are signed with while what is written down instead has brought no credential yet: until that brings one,
/// or the API server refuses this one.
struct Former {
    /// It fetches nothing any more.
    signer: Signer,
    auth: AuthInfo,
    /// Why there is no other.
    why: Option<String>,
}

/// What may happen.
enum News {
    Call(Option<Call>),
    ReadDue,
    Read(Result<Read, JoinError>),
    Signer(signer::News),
}

impl Keeper {
    /// Reads for the first time.
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
                    // Where nothing else was written, something else may be fetched.
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
                // The connections that are being made stay: nothing was sent over them yet.
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

    /// What requests are signed with at the moment.
    fn in_use(&self) -> &Signer {
        self.former.as_ref().map_or(&self.signer, |former| &former.signer)
    }

    /// Goes by what was read, if it says something else than before.
    fn follow(&mut self, settings: Settings) -> Result<(), ConnectError> {
        let (old, new) = (&self.settings, &settings);
        let signer = (old.signature != new.signature).then(|| Signer::of(new)).transpose()?;
        if signer.is_none() && old.route == new.route {
            return Ok(());
        }
        let next = signer.as_ref().unwrap_or(&self.signer);
        let ready = next.authorization().is_some();
        // What is for another server is not sent to this one.
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

    /// The new way to the server with the credential of before, if there is one.
    fn route_of_former(&self, new: &Settings) -> Option<Route> {
        let (former, in_use) = (self.former.as_ref(), self.in_use());
        in_use.authorization()?;
        let mut config = new.config.clone();
        let auth = former.map_or(&self.settings.config.auth_info, |former| &former.auth);
        config.auth_info = auth.clone();
        Route::of(&config, new.proxy.as_ref(), in_use.credential()).ok()
    }

    /// The API server does not accept this. Returns the request's sender where nothing has to be fetched.
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

    /// No credential was brought. Where there is another to go by, that may do.
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

    /// New connections for a new route: those of the old one show what has expired or trust what is trusted no more.
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

    /// Nothing, as long as there is no first credential.
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

/// Not all that were started together at one moment.
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

/// Makes connections by the route of the moment.
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

    /// Where the certificate is not accepted, the files may hold others by now.
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

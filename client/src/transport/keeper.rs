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
use kube::client::ConfigExt;
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
        let latest = Arc::new(RwLock::new(Arc::new(Route::of(&settings, None)?)));
        let connector = Connector { latest, dialer: Arc::new(Dialer::new(resolver)), calls };
        let connections = connector.connections();
        let (standing, watched) = watch::channel(Standing::Pending);
        let keeper = Self {
            changes: source.changes(),
            source,
            user_agent,
            settings,
            signer,
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
                    let (done, refused) = match self.reading.take() {
                        Some((_, done, refused)) => (done, refused),
                        None => (Vec::new(), Vec::new()),
                    };
                    let followed = read.ok().map(|read| read.and_then(|new| self.follow(*new)));
                    let failed = followed.and_then(Result::err).map(|error| error.to_string());
                    if let Some(error) = failed.as_ref().filter(|_| failed != self.complaint) {
                        tracing::warn!("{error}; going on by what was read before");
                    }
                    self.complaint = failed;
                    // Where nothing else was written, something else may be fetched.
                    let refused = refused.into_iter();
                    let fixed =
                        refused.filter_map(|(what, done)| self.signer.refused(what.as_ref(), done));
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

    /// Goes by what was read, if it says something else than before.
    fn follow(&mut self, settings: Settings) -> Result<(), ConnectError> {
        let (old, new) = (&self.settings, &settings);
        let signer = (old.signature != new.signature).then(|| Signer::of(new)).transpose()?;
        let credential = signer.as_ref().unwrap_or(&self.signer).credential();
        let route = (old.route != new.route).then(|| Route::of(new, credential)).transpose()?;
        if signer.is_none() && route.is_none() {
            return Ok(());
        }
        tracing::info!("what says how the API server is reached has changed, and is followed");
        self.settings = settings;
        self.signer =
            signer.unwrap_or_else(|| std::mem::replace(&mut self.signer, Signer::Fixed(None)));
        if let Some(route) = route {
            self.reroute(route);
        }
        self.publish()
    }

    fn signed(&mut self, news: signer::News) -> Result<(), ConnectError> {
        match self.signer.take(news) {
            Outcome::Nothing => Ok(()),
            Outcome::New => {
                let credential = self.signer.credential();
                if credential.is_some_and(|one| one.identity.is_some()) {
                    let route = Route::of(&self.settings, credential)?;
                    self.reroute(route);
                }
                self.publish()
            }
            Outcome::Failed(why) => {
                tracing::warn!("{why}");
                // Where there is something to go by, that may do.
                self.standing.send_if_modified(|standing| match standing {
                    Standing::Open(_) => false,
                    _ => {
                        *standing = Standing::Failed(why.into());
                        true
                    }
                });
                Ok(())
            }
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
        let Some(authorization) = self.signer.authorization() else { return Ok(()) };
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

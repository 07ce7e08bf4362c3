//! A service for requests to the API server that follows what describes the way there.
//!
//! Each request takes the [`Link`] of the moment: a pool of connections, and what signs requests. The
//! [keeper](super::keeper) replaces it when files have changed or a credential is fetched, and hears from here
//! what may mean that they have: a refused credential, a handshake that fails, a request that fails otherwise.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client as HttpClient, rt::TokioIo};
use kube::client::{
    Body,
    middleware::{BaseUriLayer, ExtraHeadersLayer},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tower::{Layer, Service, ServiceExt};

use super::{
    ConnectError, dial, keeper::Keeper, persist::Persistent, source::Source, stream::Stream,
};
use crate::error::BoxError;

/// How long a request that was refused waits for other credentials.
const OTHERS_WITHIN: Duration = Duration::from_secs(1);
/// A request that was given up earlier says nothing about its connection.
const SILENT: Duration = Duration::from_millis(100);

/// The connections to one destination.
pub(super) type Http = HttpClient<Persistent<TokioIo<Stream>>, Body>;

/// The way to the API server as it is at the moment.
pub(super) struct Link {
    pub http: Http,
    /// Of the pool in `http`.
    pub pool: u64,
    pub base: BaseUriLayer,
    pub headers: ExtraHeadersLayer,
    pub authorization: Option<HeaderValue>,
}

/// What requests find.
#[derive(Clone)]
pub(super) enum Standing {
    /// The first credential is being fetched.
    Pending,
    /// There is none, and why.
    Failed(Arc<str>),
    Open(Arc<Link>),
}

/// What the keeper is told.
pub(super) enum Call {
    /// Something failed that other files might repair. The sender is notified when they have been read.
    Reread(Option<oneshot::Sender<()>>),
    /// The API server does not accept this.
    Refused(Option<HeaderValue>, oneshot::Sender<()>),
    /// Nothing was heard over any connection of this pool since a request was sent: others are not to
    /// be given to a silent one as well.
    Silent(u64),
}

/// Sends requests. Clones share connections and credentials.
#[derive(Clone)]
pub struct Access {
    standing: watch::Receiver<Standing>,
    calls: mpsc::UnboundedSender<Call>,
    /// When the last answer came.
    heard: Arc<Mutex<Option<Instant>>>,
    /// The first pool that may lead anywhere.
    usable: Arc<AtomicU64>,
    _keeper: Arc<AbortOnDropHandle<()>>,
}

impl Access {
    /// Reads what the source says; nothing is sent yet. It lives on the current tokio runtime.
    ///
    /// # Errors
    /// [`ConnectError`], when what the source says cannot be used. A credential plugin has no part in that: it runs
    /// beside the requests, and they tell what is wrong with it.
    pub fn open(source: &Source, user_agent: &str) -> Result<Self, ConnectError> {
        Self::open_with(source, user_agent, dial::system())
    }

    pub(super) fn open_with(
        source: &Source,
        user_agent: &str,
        resolver: dial::Resolver,
    ) -> Result<Self, ConnectError> {
        let user_agent =
            user_agent.parse().map_err(|_| ConnectError::UserAgent(user_agent.to_owned()))?;
        let (calls, heard) = mpsc::unbounded_channel();
        let (keeper, standing) = Keeper::new(source.clone(), user_agent, resolver, calls.clone())?;
        let keeper = Arc::new(AbortOnDropHandle::new(tokio::spawn(keeper.run(heard))));
        Ok(Self { standing, calls, heard: Arc::default(), usable: Arc::default(), _keeper: keeper })
    }

    async fn link(&self) -> Result<Arc<Link>, BoxError> {
        let mut standing = self.standing.clone();
        let usable = |now: &Standing| match now {
            Standing::Pending => false,
            Standing::Failed(_) => true,
            Standing::Open(link) => link.pool >= self.usable.load(Relaxed),
        };
        let standing = standing.wait_for(usable).await;
        match &*standing.map_err(|_| "the runtime ends")? {
            Standing::Open(link) => Ok(Arc::clone(link)),
            Standing::Failed(why) => Err(why.to_string().into()),
            Standing::Pending => Err("no credential is there".into()),
        }
    }

    async fn send(
        &self,
        link: &Link,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, BoxError> {
        if let Some(authorization) = &link.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let service = link.base.layer(link.headers.layer(link.http.clone()));
        let mut unanswered =
            Unanswered { access: self, pool: link.pool, sent: Some(Instant::now()) };
        let result = service.oneshot(request).await;
        unanswered.sent = None;
        match &result {
            Ok(_) => {
                *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now())
            }
            // The server may have refused our certificate after the handshake.
            Err(_) => drop(self.calls.send(Call::Reread(None))),
        }
        Ok(result?)
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        let link = self.link().await?;
        let again = copy(&request);
        let response = self.send(&link, request).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        // Nothing was done with it, so with other credentials it may be sent again.
        let (done, reread) = oneshot::channel();
        let _ = self.calls.send(Call::Refused(link.authorization.clone(), done));
        let _ = timeout(OTHERS_WITHIN, reread).await;
        let other = self.link().await?;
        let differs = other.authorization != link.authorization || other.pool != link.pool;
        match again {
            Some(again) if differs => self.send(&other, again).await,
            _ => Ok(response),
        }
    }
}

impl Service<Request<Body>> for Access {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Incoming>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let access = self.clone();
        async move { access.exchange(request).await }.boxed()
    }
}

/// None when the body is a stream.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// A request that is under way. One that is given up while nothing was heard over any connection has been sent into
/// the void, and the other connections of its pool lead there as well.
struct Unanswered<'a> {
    access: &'a Access,
    pool: u64,
    sent: Option<Instant>,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let Some(sent) = self.sent else { return };
        let heard = *self.access.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.elapsed() >= SILENT && heard.is_none_or(|heard| heard < sent) {
            self.access.usable.fetch_max(self.pool + 1, Relaxed);
            let _ = self.access.calls.send(Call::Silent(self.pool));
        }
    }
}

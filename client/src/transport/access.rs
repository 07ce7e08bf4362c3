//! A service for requests to the API server that adapts when the description of the connection changes.
//!
//! Each request takes the current [`Link`]: a pool of connections, and the signature for requests. The
//! [keeper](super::keeper) replaces the link when files have changed or a credential was fetched. This module
//! tells the keeper of events that may have such a cause: a refused credential, a failed handshake, or a
//! request that fails otherwise.

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
/// The minimum duration of a request that counts as unanswered: one that was given up earlier says nothing
/// about its connection.
const SILENT: Duration = Duration::from_millis(100);

/// The connections to one destination.
pub(super) type Http = HttpClient<Persistent<TokioIo<Stream>>, Body>;

/// The current connection to the API server.
pub(super) struct Link {
    pub http: Http,
    /// The number of the pool in `http`.
    pub pool: u64,
    pub base: BaseUriLayer,
    pub headers: ExtraHeadersLayer,
    pub authorization: Option<HeaderValue>,
}

/// What a request finds when it starts.
#[derive(Clone)]
pub(super) enum Standing {
    /// The first credential is being fetched.
    Pending,
    /// There is no credential, and the reason.
    Failed(Arc<str>),
    Open(Arc<Link>),
}

/// The messages to the keeper.
pub(super) enum Call {
    /// A request failed in a way that other files might repair. The sender is notified when the files have
    /// been read.
    Reread(Option<oneshot::Sender<()>>),
    /// The API server does not accept this credential.
    Refused(Option<HeaderValue>, oneshot::Sender<()>),
    /// No answer has arrived over any connection of this pool since a request was sent. The next requests
    /// must not get another silent connection of the pool.
    Silent(u64),
}

/// Sends requests. Clones share connections and credentials.
#[derive(Clone)]
pub struct Access {
    standing: watch::Receiver<Standing>,
    calls: mpsc::UnboundedSender<Call>,
    /// When the last answer arrived.
    heard: Arc<Mutex<Option<Instant>>>,
    /// The number of the first pool that may still work.
    usable: Arc<AtomicU64>,
    _keeper: Arc<AbortOnDropHandle<()>>,
}

impl Access {
    /// Reads the source; nothing is sent yet. The service runs on the current tokio runtime.
    ///
    /// # Errors
    /// [`ConnectError`] if the content of the source cannot be used. A credential plugin does not cause this
    /// error: it runs beside the requests, and the requests report its failure.
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
        // The server did not execute the request, so it may be sent again with other credentials.
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

/// Copies a request; `None` if the body is a stream.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// A request that is under way. If it is given up, and no answer has arrived over any connection meanwhile,
/// its connection is dead, and the other connections of its pool are likely dead as well.
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

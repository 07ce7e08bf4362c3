//! A service for requests to the API server that adapts when the description of the connection changes.
//!
//! Each request takes the current [`Upstream`]: a pool of connections, and the credential for requests. The
//! [manager](super::manager) replaces it when files have changed or a credential was fetched. This module
//! reports to the manager what may have such a cause: a refused credential, a failed handshake, or a request
//! that fails otherwise.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use hyper::body::Incoming;
use kube::client::Body;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tower::{BoxError, Layer, Service, ServiceExt};

use super::{
    dial,
    error::ConnectError,
    manager::ConnectionManager,
    source::Source,
    upstream::{ManagerMessage, ManagerSender, Upstream, UpstreamState},
};

/// How long a request that was refused waits for other credentials.
const NEW_CREDENTIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// The minimum duration of a request that counts as unanswered: one that was given up earlier says nothing
/// about its connection.
const SILENT: Duration = Duration::from_millis(100);

/// Sends requests. Clones share connections and credentials.
#[derive(Clone)]
pub struct HttpService {
    state: watch::Receiver<UpstreamState>,
    manager: ManagerSender,
    /// When the last answer arrived.
    last_answer: Arc<Mutex<Option<Instant>>>,
    /// The number of the first pool that may still work.
    usable: Arc<AtomicU64>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl HttpService {
    /// Reads the source; nothing is sent yet. The service runs on the current tokio runtime.
    ///
    /// # Errors
    /// [`ConnectError`] if the content of the source cannot be used. A credential plugin does not cause this
    /// error: it runs beside the requests, and the requests report its failure.
    pub fn open(source: &Source, user_agent: &str) -> Result<Self, ConnectError> {
        Self::open_with(source, user_agent, dial::system())
    }

    pub(crate) fn open_with(
        source: &Source,
        user_agent: &str,
        resolver: dial::Resolver,
    ) -> Result<Self, ConnectError> {
        let user_agent =
            user_agent.parse().map_err(|_| ConnectError::UserAgent(user_agent.to_owned()))?;
        let (sender, messages) = mpsc::unbounded_channel();
        let (manager, state) =
            ConnectionManager::new(source.clone(), user_agent, resolver, sender.clone())?;
        let task = AbortOnDropHandle::new(tokio::spawn(manager.run(messages)));
        Ok(Self {
            state,
            manager: sender,
            last_answer: Arc::default(),
            usable: Arc::default(),
            _task: Arc::new(task),
        })
    }

    /// Sends the next requests to another address than this one if there is another. `None`: than the one that was
    /// connected to last. Requests that are under way stay where they are.
    pub(crate) fn leave(&self, address: Option<SocketAddr>) {
        let UpstreamState::Open(upstream) = &*self.state.borrow() else { return };
        // The next request waits for connections that are made after this.
        self.usable.fetch_max(upstream.pool + 1, Relaxed);
        let _ = self.manager.send(ManagerMessage::Leave(address));
    }

    async fn upstream(&self) -> Result<Arc<Upstream>, BoxError> {
        let mut state = self.state.clone();
        let usable = |now: &UpstreamState| match now {
            UpstreamState::Pending => false,
            UpstreamState::Failed(_) => true,
            UpstreamState::Open(upstream) => upstream.pool >= self.usable.load(Relaxed),
        };
        let state = state.wait_for(usable).await;
        match &*state.map_err(|_| "the runtime ends")? {
            UpstreamState::Open(upstream) => Ok(Arc::clone(upstream)),
            UpstreamState::Failed(error) => Err(Arc::clone(error).into()),
            UpstreamState::Pending => Err("no credential is there".into()),
        }
    }

    async fn send(
        &self,
        upstream: &Upstream,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, BoxError> {
        if let Some(authorization) = &upstream.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let service = upstream.base.layer(upstream.headers.layer(upstream.http.clone()));
        let mut unanswered =
            Unanswered { service: self, pool: upstream.pool, sent: Some(Instant::now()) };
        let result = service.oneshot(request).await;
        unanswered.sent = None;
        match &result {
            Ok(_) => {
                *self.last_answer.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(Instant::now())
            }
            // The server may have refused our certificate after the handshake.
            Err(_) => drop(self.manager.send(ManagerMessage::Reread(None))),
        }
        Ok(result?)
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        let upstream = self.upstream().await?;
        let again = copy(&request);
        let response = self.send(&upstream, request).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        // The server did not execute the request, so it may be sent again with other credentials.
        let (done, reread) = oneshot::channel();
        let _ = self.manager.send(ManagerMessage::Refused(upstream.authorization.clone(), done));
        let _ = timeout(NEW_CREDENTIAL_TIMEOUT, reread).await;
        let other = self.upstream().await?;
        let differs = other.authorization != upstream.authorization || other.pool != upstream.pool;
        match again {
            Some(again) if differs => self.send(&other, again).await,
            _ => Ok(response),
        }
    }
}

impl Service<Request<Body>> for HttpService {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Incoming>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.clone();
        async move { service.exchange(request).await }.boxed()
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
    service: &'a HttpService,
    pool: u64,
    sent: Option<Instant>,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let Some(sent) = self.sent else { return };
        let last = *self.service.last_answer.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.elapsed() >= SILENT && last.is_none_or(|last| last < sent) {
            self.service.usable.fetch_max(self.pool + 1, Relaxed);
            let _ = self.service.manager.send(ManagerMessage::Silent(self.pool));
        }
    }
}

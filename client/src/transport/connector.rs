//! Makes connections by the current route.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::{FutureExt, TryFutureExt};
use hyper_util::{
    client::legacy::Client as HttpClient,
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{sync::oneshot, time::timeout};
use tower::BoxError;

use super::{
    background_connector::BackgroundConnector,
    dial::{Dialer, Resolver},
    route::{ConnectFailure, Route},
    stream::Stream,
    upstream::{Http, ManagerMessage, ManagerSender},
};

/// How long a failed handshake waits for other files.
const REREAD_TIMEOUT: Duration = Duration::from_secs(2);
/// The API server closes a connection that was idle for 90 s (its setting of IdleTimeout in net/http). We
/// close it a little earlier: a request that crosses the server's close would fail.
const POOL_IDLE: Duration = Duration::from_secs(80);
/// The maximum number of idle connections, which is the number of GETs that are ever sent in parallel.
const POOL_SIZE: usize = 64;

/// Makes connections by the current route.
#[derive(Clone)]
pub(super) struct Connector {
    latest: Arc<RwLock<Arc<Route>>>,
    dialer: Arc<Dialer>,
    manager: ManagerSender,
}

impl Connector {
    /// Makes a connector that begins with this route.
    pub(super) fn new(route: Route, resolver: Resolver, manager: ManagerSender) -> Self {
        let latest = Arc::new(RwLock::new(Arc::new(route)));
        Self { latest, dialer: Arc::new(Dialer::new(resolver)), manager }
    }

    /// Makes new connections by this route from now on.
    pub(super) fn set_route(&self, route: Route) {
        *self.latest.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(route);
    }

    /// Tries this address after all others, for a while; `None`: the address of the last success.
    pub(super) fn leave(&self, address: Option<SocketAddr>) {
        let route = self.latest();
        let (host, port) = route.first();
        self.dialer.leave(host, port, address);
    }

    /// Makes connections that are set up in the background.
    pub(super) fn connections(&self) -> BackgroundConnector<TokioIo<Stream>> {
        let this = self.clone();
        BackgroundConnector::new(Arc::new(move || {
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
        let attempt = |address| attempt(address).map_ok(move |stream| stream.to(address));
        Ok(TokioIo::new(self.dialer.dial(host, port, attempt).await?))
    }

    /// If the certificate is not accepted, the files may have another one by now.
    async fn attempt(&self, route: Arc<Route>, address: SocketAddr) -> Result<Stream, BoxError> {
        match route.connect(address).await {
            Err(ConnectFailure::Tls(error)) => {
                let (done, reread) = oneshot::channel();
                let _ = self.manager.send(ManagerMessage::Reread(Some(done)));
                let _ = timeout(REREAD_TIMEOUT, reread).await;
                let other = self.latest();
                if Arc::ptr_eq(&other, &route) {
                    return Err(ConnectFailure::Tls(error).into());
                }
                Ok(other.connect(address).await?)
            }
            made => Ok(made?),
        }
    }
}

/// Makes a pool of these connections.
pub(super) fn pool(connections: &BackgroundConnector<TokioIo<Stream>>) -> Http {
    HttpClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_SIZE)
        .build(connections.clone())
}

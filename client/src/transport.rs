//! What every connection to the API server has in common.
//!
//! kube builds its connector with Nagle's algorithm on. Together with the peer's delayed ACK one
//! request in fifty on a mostly idle connection then waits 40 ms. So the connector is put together
//! here, with what a heartbeat needs:
//!
//! * TCP_NODELAY, and keepalive with TCP_USER_TIMEOUT: a peer that vanished without a word is
//!   noticed in half a minute, on a silent watch as well.
//! * Connections stay open. Requests side by side use one each (HTTP/1.1), and a TLS handshake
//!   costs more than a GET.
//! * No compression (it would cost more time than it saves bytes) and none of kube's retries: they
//!   wait up to 1000 s out of sight, where a beat has a deadline of its own.

use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as HttpClient, Error, ResponseFuture, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt},
};
use tower::{Service, ServiceBuilder};

use crate::credentials::Credentials;
use crate::headers::Headers;

/// The API server closes a connection that was idle for 90 s (net/http's IdleTimeout as it sets it).
/// We let go a little earlier: a request that crosses the server's close would fail.
const POOL_IDLE: Duration = Duration::from_secs(80);
/// As many idle connections are kept as GETs are ever sent side by side.
const POOL_SIZE: usize = 64;
/// A connection whose peer acknowledges nothing for this long is given up, at the latest.
const DEAD_AFTER: Duration = Duration::from_secs(25);
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// How long the head of a response may take, for a watch as for everything else.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig or the environment asks for a proxy.
    #[error(
        "the API server is to be reached through the proxy {0}, which is not supported: \
         unset HTTPS_PROXY and remove proxy-url from the kubeconfig"
    )]
    Proxy(String),
    /// The user agent cannot be sent as a header.
    #[error("{0:?} cannot be sent as a User-Agent")]
    UserAgent(String),
    /// The credentials or certificates in the configuration are unusable.
    #[error("cannot use the credentials for the API server: {0}")]
    Credentials(#[from] kube::Error),
}

/// Makes a client, on the current tokio runtime; nothing is sent yet. What the headers of the
/// answers tell is noted in `headers`.
///
/// Tokens that lie in a file, as a Pod's does, are read again every minute, and when they are refused.
///
/// # Errors
/// [`ConnectError`], when the configuration cannot be used.
pub fn connect(
    config: Config,
    user_agent: &str,
    headers: &Headers,
) -> Result<Client, ConnectError> {
    let config = prepare(config, user_agent)?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(Credentials::of(&config)?)
        .layer(config.extra_headers_layer()?)
        .map_response(headers.observer())
        // Ends with the head of the response: the body is no part of this future.
        .timeout(RESPONSE_TIMEOUT)
        .service(http(&config)?);
    Ok(Client::new(service, config.default_namespace))
}

/// A configuration with a user agent; kube sends none of its own, and one that the configuration
/// already names gives way.
///
/// # Errors
/// [`ConnectError`], also for a proxy: none is supported.
pub fn prepare(config: Config, user_agent: &str) -> Result<Config, ConnectError> {
    if let Some(proxy) = &config.proxy_url {
        // Only the host: a proxy's URL may hold a password.
        return Err(ConnectError::Proxy(proxy.host().unwrap_or_default().to_owned()));
    }
    with_user_agent(config, user_agent)
}

/// The innermost service: connections, TLS, and the pool.
///
/// # Errors
/// [`ConnectError`], when the certificates of the configuration cannot be used.
pub fn http(
    config: &Config,
) -> Result<
    impl Service<Request<Body>, Response = Response<Incoming>, Error = Error, Future = ResponseFuture>
    + Clone
    + Send
    + Sync
    + use<>,
    ConnectError,
> {
    let https = config.rustls_https_connector_with_connector(tcp(config))?;
    Ok(HttpClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_SIZE)
        .build::<_, Body>(https))
}

/// A call that took longer than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {}", beatkeeper_api::duration::format(*.0))]
pub struct TookTooLong(pub Duration);

/// Bounds a whole call, body included. For everything but watches.
///
/// # Errors
/// [`TookTooLong`]. Whether the API server has done what was asked is unknown then.
pub async fn within<T>(
    limit: Duration,
    call: impl Future<Output = T> + Send,
) -> Result<T, TookTooLong> {
    tokio::time::timeout(limit, call).await.map_err(|_| TookTooLong(limit))
}

/// The connector for TCP.
pub fn tcp(config: &Config) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    tcp.set_connect_timeout(config.connect_timeout);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some((DEAD_AFTER - KEEPALIVE) / KEEPALIVE_RETRIES));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(DEAD_AFTER));
    tcp
}

fn with_user_agent(mut config: Config, agent: &str) -> Result<Config, ConnectError> {
    let unusable = || ConnectError::UserAgent(agent.to_owned());
    let name = "user-agent".parse().map_err(|_| unusable())?;
    let value = agent.parse().map_err(|_| unusable())?;
    config.headers.retain(|(header, _)| *header != name);
    config.headers.push((name, value));
    Ok(config)
}

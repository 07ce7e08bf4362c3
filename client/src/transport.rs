//! The way to the API server: found, kept open, and followed where it leads elsewhere.
//!
//! kube's own connector is put together for a program that is started, asks and ends. Something that beats runs for
//! months, and is gone where it is late by a ttl. So this one
//!
//! * switches Nagle's algorithm off (kube leaves it on; together with the peer's delayed ACK one request in fifty on
//!   a mostly idle connection then waits 40 ms), and keeps connections open;
//! * tries all addresses of a name within fractions of a second of each other (`dial`), and goes on making a
//!   connection when the request that asked for it has been given up (`persist`);
//! * gives a request that follows one into the void a new connection, and notices a peer that has vanished in half a
//!   minute on a silent watch as well;
//! * reads kubeconfig, certificates, keys and tokens again when they change, when a handshake fails and when
//!   the API server refuses a credential (`source`, `keeper`), and fetches credentials beside the requests
//!   (`signer`, `plugin`);
//! * goes through a proxy where the kubeconfig or the environment says so (`proxy`);
//! * has no compression (it would cost more time than it saves bytes) and none of kube's retries: they wait up to
//!   1000 s out of sight, where a beat has a deadline of its own.

mod access;
mod dial;
mod keeper;
mod persist;
mod plugin;
mod proxy;
mod redacted;
mod route;
mod signer;
mod source;
mod stream;
#[cfg(test)]
mod tests;

use std::time::Duration;

use kube::Client;
use tower::ServiceBuilder;

use crate::headers::Headers;

pub use access::Access;
pub use proxy::ProxyError;
pub use route::tcp;
pub use source::Source;

/// How long the head of a response may take, for a watch as for everything else.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig or the environment asks for a proxy that cannot be used.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The user agent cannot be sent as a header.
    #[error("{0:?} cannot be sent as a User-Agent")]
    UserAgent(String),
    /// The credentials or certificates in the configuration are unusable. What they hold is not shown.
    #[error("cannot use the credentials for the API server: {0}")]
    Credentials(String),
    /// A file cannot be read, or does not hold what it should.
    #[error("cannot read how to reach the API server: {0}")]
    Unreadable(String),
}

impl From<kube::Error> for ConnectError {
    fn from(error: kube::Error) -> Self {
        Self::Credentials(redacted::kube(&error))
    }
}

/// There is neither a kubeconfig nor a Pod's ServiceAccount that can be used. What they hold is not shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kubeconfig}; and this is no Pod with a ServiceAccount: {pod}")]
pub struct NoWay {
    kubeconfig: String,
    pod: String,
}

/// Makes a client, on the current tokio runtime; nothing is sent yet. What the headers of the
/// answers tell is noted in `headers`. What the source says is read again for as long as the client lives.
///
/// # Errors
/// [`ConnectError`], when what the source says cannot be used.
pub fn connect(
    source: impl Into<Source>,
    user_agent: &str,
    headers: &Headers,
) -> Result<Client, ConnectError> {
    let source = source.into();
    let service = ServiceBuilder::new()
        .map_response(headers.observer())
        // Ends with the head of the response: the body is no part of this future.
        .timeout(RESPONSE_TIMEOUT)
        .service(Access::open(&source, user_agent)?);
    Ok(Client::new(service, source.namespace()))
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

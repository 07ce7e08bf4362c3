//! The connection to the API server: it is found, kept open, and moved when its description changes.
//!
//! kube's own connector is made for a program that starts, sends its requests and ends. A process that beats
//! runs for months, and is pruned if its beats are late by a ttl. So this connector
//!
//! * switches Nagle's algorithm off (kube leaves it on; together with the peer's delayed ACK, one request in
//!   fifty on a mostly idle connection then waits 40 ms), and keeps connections open;
//! * tries all addresses of a name, starting within fractions of a second of each other (`dial`), and
//!   continues to make a connection after the request that asked for it was given up (`persist`);
//! * uses a new connection for the request after one that got no answer, and detects within half a minute
//!   that a peer has vanished, also on a silent watch;
//! * reads kubeconfig, certificates, keys and tokens again when they change, when a handshake fails and when
//!   the API server refuses a credential (`source`, `keeper`), and fetches credentials without delaying the
//!   requests (`signer`, `plugin`);
//! * uses a proxy if the kubeconfig or the environment says so (`proxy`);
//! * has no compression (it would cost more time than it saves bytes) and none of kube's retries: these wait
//!   invisibly for up to 1000 s, whereas a beat has a deadline of its own.

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

/// How long the head of a response may take, for a watch as for any other request.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig or the environment names a proxy that cannot be used.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The user agent cannot be sent as a header.
    #[error("{0:?} cannot be sent as a User-Agent")]
    UserAgent(String),
    /// The credentials or certificates in the configuration are unusable. Their content is not shown.
    #[error("cannot use the credentials for the API server: {0}")]
    Credentials(String),
    /// A file cannot be read, or does not have the expected content.
    #[error("cannot read how to reach the API server: {0}")]
    Unreadable(String),
}

impl From<kube::Error> for ConnectError {
    fn from(error: kube::Error) -> Self {
        Self::Credentials(redacted::kube(&error))
    }
}

/// There is neither a usable kubeconfig nor a usable ServiceAccount of a Pod. Their content is not shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kubeconfig}; and this is no Pod with a ServiceAccount: {pod}")]
pub struct NoWay {
    kubeconfig: String,
    pod: String,
}

/// Makes a client on the current tokio runtime; nothing is sent yet. Values from the headers of the answers
/// are recorded in `headers`. The source is read again and again while the client lives.
///
/// # Errors
/// [`ConnectError`] if the content of the source cannot be used.
pub fn connect(
    source: impl Into<Source>,
    user_agent: &str,
    headers: &Headers,
) -> Result<Client, ConnectError> {
    let source = source.into();
    let service = ServiceBuilder::new()
        .map_response(headers.observer())
        // The timeout ends with the head of the response: the body is not part of this future.
        .timeout(RESPONSE_TIMEOUT)
        .service(Access::open(&source, user_agent)?);
    Ok(Client::new(service, source.namespace()))
}

/// A call that exceeded its time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {}", beatkeeper_api::duration::format(*.0))]
pub struct TookTooLong(pub Duration);

/// Limits the time of a whole call, including the body. Not for watches.
///
/// # Errors
/// [`TookTooLong`]. It is then unknown whether the API server has executed the request.
pub async fn within<T>(
    limit: Duration,
    call: impl Future<Output = T> + Send,
) -> Result<T, TookTooLong> {
    tokio::time::timeout(limit, call).await.map_err(|_| TookTooLong(limit))
}

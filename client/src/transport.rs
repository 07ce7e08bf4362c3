//! The connection to the API server: it is found, kept open, and moved when its description changes.
//!
//! kube's own connector is made for a program that starts, sends its requests and ends. A process that beats
//! runs for months, and is pruned if its beats are late by a ttl. So this connector
//!
//! * switches Nagle's algorithm off (kube leaves it on; together with the peer's delayed ACK, one request in
//!   fifty on a mostly idle connection then waits 40 ms), and keeps connections open;
//! * tries all addresses of a name, starting within fractions of a second of each other (`dial`), and
//!   continues to make a connection after the request that asked for it was given up (`background_connector`);
//! * uses a new connection for the request after one that got no answer, and detects within half a minute
//!   that a peer has vanished, also on a silent watch;
//! * reads kubeconfig, certificates, keys and tokens again when they change, when a handshake fails and when
//!   the API server refuses a credential (`source`, `manager`), and fetches credentials without delaying the
//!   requests (`signer`, `plugin`);
//! * uses a proxy if the kubeconfig or the environment says so (`proxy`);
//! * has no compression (it would cost more time than it saves bytes) and none of kube's retries: these wait
//!   invisibly for up to 1000 s, whereas a beat has a deadline of its own.

mod background_connector;
mod connector;
mod dial;
mod error;
mod manager;
mod plugin;
mod proxy;
mod redacted;
mod route;
mod service;
mod signer;
mod source;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod upstream;

use std::time::Duration;

use kube::Client;
use tower::ServiceBuilder;

use crate::headers::Headers;

pub(crate) use dial::{Resolver, system as system_resolver};
pub use error::{ConnectError, NoConfiguration, NoSource};
pub use plugin::TokenError;
pub use proxy::ProxyError;
pub use route::tcp;
pub use service::HttpService;
pub use source::{ActAs, Choice, Source};
pub(crate) use stream::PeerAddress;

/// The User-Agent of programs that use the SDK.
pub(crate) const USER_AGENT: &str = concat!("beatkeeper-client/", env!("CARGO_PKG_VERSION"));
/// How long the head of a response may take, for a watch as for any other request.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

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
        .service(HttpService::open(&source, user_agent)?);
    Ok(Client::new(service, source.namespace()))
}

//! Why the API server cannot be reached at all.

use super::{plugin::TokenError, proxy::ProxyError, redacted};

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
    #[error("cannot use the credentials for the server: {0}")]
    Credentials(String),
    /// The token in the configuration cannot be sent. It is not shown.
    #[error("cannot read how to reach the server: {0}")]
    Token(#[source] TokenError),
    /// A file cannot be read, or does not have the expected content.
    #[error("cannot read how to reach the server: {0}")]
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
pub struct NoConfiguration {
    pub(super) kubeconfig: String,
    pub(super) pod: String,
}

/// Why there is no source for the connection that a user has chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSource {
    /// The named kubeconfig or context cannot be used. Its content is not shown.
    #[error("{0}")]
    Chosen(String),
    /// Nothing was named, and nothing is there.
    #[error(transparent)]
    Nothing(#[from] NoConfiguration),
}

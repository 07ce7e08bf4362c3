//! The current connection to the API server, and how the requests and its manager talk to each other.

use std::{net::SocketAddr, sync::Arc};

use http::HeaderValue;
use hyper_util::{client::legacy::Client as HttpClient, rt::TokioIo};
use kube::client::{
    Body,
    middleware::{BaseUriLayer, ExtraHeadersLayer},
};
use tokio::sync::{mpsc, oneshot};

use super::{background_connector::BackgroundConnector, signer::CredentialError, stream::Stream};

/// The connections to one destination.
pub(super) type Http = HttpClient<BackgroundConnector<TokioIo<Stream>>, Body>;

/// The current connection to the API server.
pub(super) struct Upstream {
    pub http: Http,
    /// The number of the pool in `http`.
    pub pool: u64,
    pub base: BaseUriLayer,
    pub headers: ExtraHeadersLayer,
    pub authorization: Option<HeaderValue>,
}

/// What a request finds when it starts.
#[derive(Clone)]
pub(super) enum UpstreamState {
    /// The first credential is being fetched.
    Pending,
    /// There is no credential, and the reason.
    Failed(Arc<CredentialError>),
    Open(Arc<Upstream>),
}

/// Sends messages to the manager of the connection.
pub(super) type ManagerSender = mpsc::UnboundedSender<ManagerMessage>;

/// The messages to the manager.
pub(super) enum ManagerMessage {
    /// A request failed in a way that other files might repair. The sender is notified when the files have
    /// been read.
    Reread(Option<oneshot::Sender<()>>),
    /// The API server does not accept this credential.
    Refused(Option<HeaderValue>, oneshot::Sender<()>),
    /// No answer has arrived over any connection of this pool since a request was sent. The next requests
    /// must not get another silent connection of the pool.
    Silent(u64),
    /// The next requests are to go to another address than this one if there is another. `None`: than the one that
    /// was connected to last.
    Leave(Option<SocketAddr>),
}

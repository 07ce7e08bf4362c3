//! Answers `GET /explain/NAMESPACE/REGISTRATION/INSTANCE`.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use beatkeeper_api::{explain::ExplainEndpoint, text::plain};
use beatkeeper_core::vocabulary::key::Key;
use k8s_openapi::ByteString;
use rustls::ServerConfig;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::scopes::Scopes;
use crate::controller::{
    host::Process,
    secure::{
        certificate::{Certificate, CertificateError},
        guard::{Access, Guard},
        review::Reviewer,
        server,
    },
};

/// The longest name of an object. The API server is not asked about longer ones.
const NAME_MAX: usize = 253;

/// A server that listens, and does not answer yet.
pub(crate) struct ExplainServer {
    listener: TcpListener,
    config: Arc<ServerConfig>,
    endpoint: ExplainEndpoint,
}

impl ExplainServer {
    /// Makes a certificate for a listener.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub(crate) async fn on(listener: TcpListener) -> Result<Self, CertificateError> {
        let certificate = Certificate::open(None).await?;
        // A listener that is bound has an address.
        let port = listener.local_addr().map(|address| address.port()).unwrap_or_default();
        let endpoint = ExplainEndpoint { port, certificate: ByteString(certificate.der()) };
        Ok(Self { listener, config: certificate.server()?, endpoint })
    }

    /// Where readers find it.
    pub(crate) fn endpoint(&self) -> &ExplainEndpoint {
        &self.endpoint
    }

    /// Answers until `stop` is cancelled, or the returned value is dropped.
    pub(crate) fn start<R: Reviewer>(
        self,
        scopes: Arc<Scopes>,
        guard: Guard<R>,
        process: &Process,
        stop: &CancellationToken,
    ) -> JoinSet<()> {
        let asked = Asked { scopes, guard: Arc::new(guard) };
        let router = Router::new()
            .route("/explain/{namespace}/{registration}/{instance}", get(answer::<R>))
            .with_state(asked);
        let mut tasks = JoinSet::new();
        let serving =
            server::serve(self.listener, self.config, router, process.clone(), stop.clone());
        tasks.spawn(process.task(serving));
        tasks
    }
}

/// What answers a request.
struct Asked<R> {
    scopes: Arc<Scopes>,
    guard: Arc<Guard<R>>,
}

impl<R> Clone for Asked<R> {
    fn clone(&self) -> Self {
        Self { scopes: self.scopes.clone(), guard: self.guard.clone() }
    }
}

async fn answer<R: Reviewer>(
    State(asked): State<Asked<R>>,
    Path((namespace, registration, instance)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    if [&namespace, &registration, &instance].iter().any(|name| name.len() > NAME_MAX) {
        return (StatusCode::BAD_REQUEST, "no name is that long\n").into_response();
    }
    let key = Key::new(namespace, registration);
    // A user that may not get the registration does not learn either whether it exists.
    if let Err(refused) = asked.guard.check(&headers, Access::Registration(key.clone())).await {
        return refused.into_response();
    }
    let Some(explanation) = asked.scopes.explain(&key, &instance) else {
        let key = key.to_string();
        let body = format!("this replica knows no ServiceRegistration {}\n", plain(&key));
        return (StatusCode::NOT_FOUND, body).into_response();
    };
    match serde_json::to_vec(&explanation) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        // No number in it is infinite, and no key of a map is anything but text.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

//! What the console answers.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{ConnectInfo, Path, RawQuery, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use beatkeeper_core::vocabulary::key::Key;
use futures::StreamExt;

use super::{
    connections::Handle,
    files,
    gate::{Gate, Refusal},
    readers::Readers,
};

/// How often a line without meaning is sent, so that a broken connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What the page may load and do: its own files, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// Sent with each answer.
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What answers need.
pub struct Site {
    /// Which requests are answered.
    pub gate: Gate,
    /// With whose rights.
    pub readers: Readers,
}

/// Answers the requests that the gate admits.
pub fn router(site: Site) -> Router {
    let prefix = site.gate.prefix().to_owned();
    let site = Arc::new(site);
    Router::new()
        .route(&format!("{prefix}/events"), get(stream))
        .route(&format!("{prefix}/why/{{namespace}}/{{name}}/{{instance}}"), get(why))
        .route(&format!("{prefix}/healthz"), get("ok\n"))
        .fallback(file)
        .layer(middleware::from_fn_with_state(site.clone(), guard))
        .with_state(site)
}

/// Refuses what the gate refuses, and sets the headers of each answer.
async fn guard(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    if let Some(ConnectInfo(connection)) = request.extensions().get::<ConnectInfo<Handle>>() {
        connection.asks();
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let admitted = site.gate.admit(host, request.method(), request.uri().path());
    let mut answer = match admitted.map(|_| ()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            let allow = (refusal == Refusal::Method).then_some([(header::ALLOW, "GET")]);
            let text = (refusal.status(), refusal.text());
            allow.map_or_else(|| text.into_response(), |allow| (allow, text).into_response())
        }
    };
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

async fn file(State(site): State<Arc<Site>>, request: Request) -> Response {
    let prefix = site.gate.prefix();
    match request.uri().path().strip_prefix(prefix) {
        // The names of the files are relative to the folder.
        Some("") => {
            let folder = format!("{prefix}/");
            (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, folder)]).into_response()
        }
        path => match path.and_then(files::at) {
            Some(file) => ([(header::CONTENT_TYPE, file.media_type)], file.text).into_response(),
            None => (StatusCode::NOT_FOUND, Refusal::Path.text()).into_response(),
        },
    }
}

async fn stream(
    State(site): State<Arc<Site>>,
    connection: Option<Extension<ConnectInfo<Handle>>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    match site.readers.stream(&headers, &query.unwrap_or_default()).await {
        Ok(messages) => {
            // The reader has a place, and its connection with it.
            let held = connection.map(|Extension(ConnectInfo(connection))| connection.hold());
            let events = messages.map(move |text| {
                let _ = &held;
                Ok::<_, Infallible>(Event::default().data(&*text))
            });
            Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
        }
        Err(refused) => refused.into_response(),
    }
}

async fn why(
    State(site): State<Arc<Site>>,
    Path((namespace, name, instance)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    match site.readers.why(&headers, Key::new(namespace, name), instance).await {
        Ok(report) => match serde_json::to_string(&report) {
            Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        },
        Err(refused) => refused.into_response(),
    }
}

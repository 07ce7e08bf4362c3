//! Serves the page on this computer.

use std::{convert::Infallible, net::SocketAddr, process::Stdio, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use beatkeeper_core::vocabulary::key::Key;
use futures::{Stream, StreamExt, stream};
use tokio::{net::TcpListener, process::Command, sync::broadcast};

use super::{
    feed::{Feed, Subscription},
    files,
    gate::{Gate, Refusal},
    operator::Source,
};
use crate::{
    error::{Error, Outcome},
    gather::{events, scope::Wanted},
    output::Output,
    session::Session,
    signals::End,
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

/// How to serve.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The address to listen on; port 0 for a free one.
    pub at: SocketAddr,
    /// Whether to open the page in a browser.
    pub open: bool,
    /// Where to look for the operator.
    pub source: Source,
}

/// What answers need.
struct Context {
    gate: Gate,
    feed: Feed,
    session: Session,
}

/// Serves the page until the user ends it. The address is printed once it answers.
///
/// # Errors
/// [`Error`], if the address is in use, or the registration does not exist.
pub async fn run(
    session: &Session,
    wanted: &Wanted,
    settings: Settings,
    output: &Output,
) -> Result<Outcome, Error> {
    let mut end = End::new()?;
    let feed = Feed::start(session, wanted, settings.source).await?;
    let refused = |cause| Error::Listen { at: settings.at, cause };
    let listener = TcpListener::bind(settings.at).await.map_err(refused)?;
    let at = listener.local_addr().map_err(refused)?;
    let context = Context { gate: Gate::new(at), feed, session: session.clone() };
    let url = format!("http://{at}/{}/", context.gate.secret());
    output.text(&format!("{url}\n"))?;
    output.remark(&format!(
        "This page shows {} to every program on this computer that knows its address. Ctrl-C ends it.",
        wanted.scope
    ));
    if settings.open {
        open(&url, output);
    }
    let served = axum::serve(listener, router(context));
    tokio::select! {
        served = served => served.map(|()| Outcome::Well).map_err(Error::Start),
        // Without waiting for the open pages, which read for ever.
        () = end.asked() => Ok(Outcome::Well),
    }
}

/// Opens the page in the browser that the system prefers.
fn open(url: &str, output: &Output) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = command.spawn() {
        output.remark(&format!("cannot open a browser with {program}: {error}"));
    }
}

fn router(context: Context) -> Router {
    let context = Arc::new(context);
    Router::new()
        .route("/{secret}/events", get(stream_of))
        .route("/{secret}/why/{namespace}/{name}/{instance}", get(why))
        .fallback(file)
        .layer(middleware::from_fn_with_state(context.clone(), guard))
        .with_state(context)
}

/// Refuses what the gate refuses, and sets the headers of each answer.
async fn guard(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let admitted = context.gate.admit(host, request.method(), request.uri().path());
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

async fn file(State(context): State<Arc<Context>>, request: Request) -> Response {
    let path = request.uri().path();
    let path = path.strip_prefix('/').and_then(|path| path.strip_prefix(context.gate.secret()));
    match path {
        // The names of the files are relative to the folder.
        Some("") => {
            let folder = format!("/{}/", context.gate.secret());
            (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, folder)]).into_response()
        }
        path => match path.and_then(files::at) {
            Some(file) => ([(header::CONTENT_TYPE, file.media_type)], file.text).into_response(),
            None => (StatusCode::NOT_FOUND, Refusal::Path.text()).into_response(),
        },
    }
}

async fn stream_of(State(context): State<Arc<Context>>) -> Response {
    match context.feed.subscribe().await {
        Some(Subscription { first, then }) => {
            let all = stream::iter(first).chain(changes(then));
            let events = all.map(|text| Ok::<_, Infallible>(Event::default().data(&*text)));
            Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// The changes until the page is too far behind. Then it connects again, and is told everything.
fn changes(then: broadcast::Receiver<Arc<str>>) -> impl Stream<Item = Arc<str>> + Send {
    stream::unfold(then, async |mut then| Some((then.recv().await.ok()?, then)))
}

async fn why(
    State(context): State<Arc<Context>>,
    Path((_, namespace, name, instance)): Path<(String, String, String, String)>,
) -> Response {
    let key = Key::new(namespace, name);
    // Without the right to read events, the argument lacks its history alone.
    let events = events::of(&context.session.client, &key).await.unwrap_or_default();
    match context.feed.why(key, instance, events).await {
        Some(report) => match serde_json::to_string(&report) {
            Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        },
        None => (StatusCode::NOT_FOUND, "There is no such instance.\n").into_response(),
    }
}

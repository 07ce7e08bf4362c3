//! Health and metrics, on a port of their own without TLS.

use std::{convert::Infallible, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    http::answer::App,
    metrics::{self, Metrics},
};

/// The most connections.
const CONNECTIONS: usize = 64;
/// How long a connection may be idle, or take for the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may last.
const LASTS: Duration = Duration::from_secs(300);
/// The pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers for a gateway that runs, for ever.
pub async fn serve(app: Rc<App>, listener: TcpListener) {
    let answers = move |path: &str| answer(path, &app.hub.metrics, || readiness(&app));
    accept(&listener, Rc::new(answers)).await;
}

/// Answers for a gateway that cannot take beats yet, for ever: it lives, so the kubelet has no reason to start it again.
pub async fn serve_not_ready(listener: &TcpListener, metrics: Rc<Metrics>, why: &'static str) {
    let not_ready = move || text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
    accept(listener, Rc::new(move |path: &str| answer(path, &metrics, not_ready))).await;
}

/// What is answered for a path.
type Answers = Rc<dyn Fn(&str) -> Response<Full<Bytes>>>;

async fn accept(listener: &TcpListener, answers: Answers) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        if connections.len() < CONNECTIONS {
            connections.spawn_local(timeout(LASTS, connection(answers.clone(), stream)));
        }
    }
}

async fn connection(answers: Answers, stream: TcpStream) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = match *request.method() {
            Method::GET => answers(request.uri().path()),
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        };
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a client of the metrics has gone");
    }
}

fn answer(
    path: &str,
    metrics: &Metrics,
    readiness: impl FnOnce() -> Response<Full<Bytes>>,
) -> Response<Full<Bytes>> {
    match path {
        // The one thread answers, so it turns.
        "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => readiness(),
        "/metrics" => {
            let mut page = text(StatusCode::OK, metrics.text());
            let content_type = HeaderValue::from_static(metrics::CONTENT_TYPE);
            page.headers_mut().insert(header::CONTENT_TYPE, content_type);
            page
        }
        _ => text(StatusCode::NOT_FOUND, "it has /livez, /readyz and /metrics\n".to_owned()),
    }
}

fn readiness(app: &App) -> Response<Full<Bytes>> {
    match (app.drains(), app.hub.open_streams()) {
        (true, _) => text(StatusCode::SERVICE_UNAVAILABLE, "it ends\n".to_owned()),
        (false, 0) => {
            let why = "no replica of the operator has a stream to it\n";
            text(StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
        }
        (false, streams) => text(StatusCode::OK, format!("ok, with {streams} streams\n")),
    }
}

fn text(code: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = code;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

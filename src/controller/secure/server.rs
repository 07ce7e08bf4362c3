//! An HTTP server over TLS, for few clients. What a client may occupy is bounded in number and in time.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::controller::host::Process;

/// The most connections at the same time. Others wait until one of them ends.
const CONNECTIONS: usize = 64;
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection may be idle, or take for the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may last. Clients connect again.
const LASTS: Duration = Duration::from_secs(300);
/// The pause after a connection could not be accepted, for example because the process has too many files open.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until it is stopped.
pub(in crate::controller) async fn serve(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    router: Router,
    process: Process,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let serving = async {
        loop {
            // The semaphore is never closed.
            let place = places.clone().acquire_owned().await;
            let Ok((stream, _)) = listener.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            let (acceptor, router) = (TlsAcceptor::from(config.clone()), router.clone());
            connections.spawn(process.task(async move {
                let _place = place;
                let _ = timeout(LASTS, answer(stream, acceptor, router)).await;
            }));
            while connections.try_join_next().is_some() {}
        }
    };
    // Scrapes that are under way end with the process: the next one asks another replica.
    stop.run_until_cancelled(serving).await;
}

async fn answer(stream: TcpStream, acceptor: TlsAcceptor, router: Router) {
    let Ok(Ok(stream)) = timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await else { return };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!(%error, "a client has gone");
    }
}

//! Accepts connections of instances, as many as fit.

use std::{
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    time::Duration,
};

use hyper::{
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    http::{
        answer::{App, Connection},
        connection::{Overdue, Watch, Watched},
    },
    places::{Places, Shares},
    settings::Limits,
    tls::ServerTls,
};

/// The pause after a connection could not be accepted, for example because the process has too many files open.
const PAUSE: Duration = Duration::from_millis(100);

/// How many connections there may be. Pods of one subnet may share a network of 64 bits, so it may have most of them, and a
/// single host not all.
fn shares(limits: &Limits) -> Shares {
    let network = limits.connections.saturating_mul(3).div_ceil(4);
    Shares { all: limits.connections, network, address: limits.connections_per_address }
}

/// The shares for a connection. Others at the address of this gateway must not stop its proofs, so its own connection is
/// not held to the share of an address. The other two hold for it as well: where no instance of a network finds a place,
/// time must not count as proven (G3).
fn shares_of(app: &App, from: SocketAddr) -> Shares {
    let shares = shares(&app.limits);
    if app.proofs.is_own_connection(from) {
        return Shares { address: usize::MAX, ..shares };
    }
    shares
}

/// Accepts connections, for ever. When it is dropped, they end.
pub async fn serve(app: Rc<App>, listener: TcpListener, tls: Rc<ServerTls>) {
    let places = Rc::new(Places::default());
    let mut connections = JoinSet::new();
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        // A handshake costs more than a hundred beats. So those that do not fit are closed before it.
        let place = match places.take(address.ip(), shares_of(&app, address)) {
            Ok(place) => place,
            Err(reason) => {
                app.hub.metrics.turned_away(reason.label());
                continue;
            }
        };
        app.hub.metrics.connections.inc();
        let (app, tls) = (app.clone(), TlsAcceptor::from(tls.config()));
        connections.spawn_local(async move {
            let _place = place;
            let _open = Open(app.clone());
            connection(app, stream, tls).await;
        });
    }
}

/// A connection that is counted until it is dropped.
struct Open(Rc<App>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.hub.metrics.connections.dec();
    }
}

/// Spawns on this thread.
#[derive(Debug, Clone, Copy)]
struct Here;

impl<F: Future + 'static> Executor<F> for Here {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

async fn connection(app: Rc<App>, stream: TcpStream, tls: TlsAcceptor) {
    // Without this, an answer may wait 40 ms for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(app.limits.handshake, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake has failed");
            return app.hub.metrics.cut("handshake");
        }
        Err(_) => return app.hub.metrics.cut("slow_handshake"),
    };
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => serve_http2(app, stream).await,
        _ => serve_http1(app, stream).await,
    }
}

async fn serve_http1(app: Rc<App>, stream: TlsStream<TcpStream>) {
    let watch = Rc::new(Watch::new(true, &app.limits, Instant::now()));
    let io = TokioIo::new(Watched::new(stream, watch.clone()));
    let connection = Rc::new(Connection::new(app.clone(), watch.clone()));
    let service = service_fn(move |request| connection.clone().answer(request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        // The watch of the connection does this: hyper's limit would count an idle connection, too.
        .header_read_timeout(None::<Duration>)
        .max_buf_size(app.limits.head_bytes)
        .serve_connection(io, service);
    drive(&app, &watch, pin!(served), http1::Connection::graceful_shutdown).await;
}

async fn serve_http2(app: Rc<App>, stream: TlsStream<TcpStream>) {
    let watch = Rc::new(Watch::new(false, &app.limits, Instant::now()));
    let io = TokioIo::new(Watched::new(stream, watch.clone()));
    let connection = Rc::new(Connection::new(app.clone(), watch.clone()));
    let service = service_fn(move |request| connection.clone().answer(request));
    let bytes = u32::try_from(app.limits.beats_bytes).unwrap_or(u32::MAX);
    let served = http2::Builder::new(Here)
        .timer(TokioTimer::new())
        .max_concurrent_streams(app.limits.requests_per_connection)
        .max_header_list_size(u32::try_from(app.limits.head_bytes).unwrap_or(u32::MAX))
        // What a client may send without being read: one body of the longest kind.
        .initial_connection_window_size(bytes.max(65_535))
        .max_send_buf_size(64 * 1024)
        .serve_connection(io, service);
    drive(&app, &watch, pin!(served), http2::Connection::graceful_shutdown).await;
}

/// Serves a connection until it ends, or has to end.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    app: &App,
    watch: &Watch,
    mut served: Pin<&mut C>,
    close: fn(Pin<&mut C>),
) {
    let mut closing = None;
    let mut check = Instant::now() + app.limits.head;
    loop {
        tokio::select! {
            result = served.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection has ended");
                }
                return;
            }
            () = watch.closes(), if closing.is_none() => {
                close(served.as_mut());
                closing = Some(Instant::now() + app.limits.write);
            }
            () = sleep_until(check) => {}
        }
        let now = Instant::now();
        if now < check {
            continue;
        }
        check = now + app.limits.head;
        match watch.overdue(&app.limits, now) {
            _ if closing.is_some_and(|end| now >= end) => return,
            None => {}
            Some(Overdue::Idle) => {
                if closing.is_none() {
                    app.hub.metrics.cut(Overdue::Idle.label());
                }
                watch.close();
            }
            Some(overdue) => return app.hub.metrics.cut(overdue.label()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_three_quarters_of_the_places() {
        let of = |connections| shares(&Limits { connections, ..Limits::default() }).network;
        assert_eq!([1, 2, 4, 8192].map(of), [1, 2, 3, 6144]);
    }
}

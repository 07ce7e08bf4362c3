//! The connections of a server that others reach: a bounded number, and each ends when nothing moves over it.
//!
//! Who a connection belongs to is not known before its request, and an address does not tell readers apart: a proxy has one
//! for all of them. So a connection beyond the bound takes the place of the one whose last request is the longest ago, or
//! that has sent none for the longest. A connection that is held for a reader keeps its place; readers have only so many
//! ([`super::places`]).

use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use futures::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{Instant, Sleep, sleep},
};

/// A listener.
pub struct Connections {
    listener: TcpListener,
    open: Arc<Open>,
    idle: Duration,
}

impl Connections {
    /// Keeps at most `most` connections at the same time. One ends when for `idle` no byte could be read or written: its
    /// client says nothing, or takes nothing.
    pub fn new(listener: TcpListener, most: usize, idle: Duration) -> Self {
        let open = Open { most, known: Mutex::default(), freed: Notify::new() };
        Self { listener, open: Arc::new(open), idle }
    }
}

/// The open connections.
struct Open {
    most: usize,
    known: Mutex<Known>,
    /// One of them has ended, or is held no more.
    freed: Notify,
}

#[derive(Default)]
struct Known {
    /// Counts connections and requests.
    count: u64,
    places: HashMap<u64, Taken>,
}

/// The place of a connection.
struct Taken {
    /// When it came, or when its last request did, by the count.
    since: u64,
    held: bool,
    end: Arc<End>,
}

impl Known {
    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }
}

impl Open {
    /// The places are whole at each moment, also after a panic elsewhere.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a further connection. If all are taken, the one that asked for nothing for the longest loses its own;
    /// `None` if all are held.
    fn enter(self: &Arc<Self>) -> Option<(Handle, Arc<End>)> {
        let mut known = self.known();
        if known.places.len() >= self.most {
            let idle = known.places.iter().filter(|(_, taken)| !taken.held);
            let longest = idle.min_by_key(|(_, taken)| taken.since).map(|(id, _)| *id)?;
            if let Some(taken) = known.places.remove(&longest) {
                taken.end.ask();
            }
        }
        let (id, end) = (known.next(), Arc::<End>::default());
        known.places.insert(id, Taken { since: id, held: false, end: Arc::clone(&end) });
        Some((Handle { open: Arc::clone(self), id }, end))
    }
}

/// Asks a connection to end.
#[derive(Default)]
struct End {
    asked: AtomicBool,
    waker: AtomicWaker,
}

impl End {
    fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn is_asked(&self, context: &Context<'_>) -> bool {
        self.waker.register(context.waker());
        self.asked.load(Ordering::Acquire)
    }
}

/// A connection, as those see it that answer its requests.
#[derive(Clone)]
pub struct Handle {
    open: Arc<Open>,
    id: u64,
}

impl Handle {
    /// Notes that a request has come.
    pub fn asks(&self) {
        let mut known = self.open.known();
        let now = known.next();
        if let Some(taken) = known.places.get_mut(&self.id) {
            taken.since = now;
        }
    }

    /// Keeps its place, until what this returns is dropped.
    pub fn hold(&self) -> Held {
        if let Some(taken) = self.open.known().places.get_mut(&self.id) {
            taken.held = true;
        }
        Held(self.clone())
    }
}

impl Connected<IncomingStream<'_, Connections>> for Handle {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        stream.io().handle.clone()
    }
}

/// A connection that keeps its place.
pub struct Held(Handle);

impl Drop for Held {
    fn drop(&mut self) {
        let Handle { open, id } = &self.0;
        if let Some(taken) = open.known().places.get_mut(id) {
            taken.held = false;
        }
        open.freed.notify_one();
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, from) = Listener::accept(&mut self.listener).await;
        let (handle, end) = loop {
            if let Some(entered) = self.open.enter() {
                break entered;
            }
            self.open.freed.notified().await;
        };
        let quiet = Box::pin(sleep(self.idle));
        (Connection { stream, idle: self.idle, quiet, handle, end }, from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection.
pub struct Connection {
    stream: TcpStream,
    idle: Duration,
    quiet: Pin<Box<Sleep>>,
    handle: Handle,
    end: Arc<End>,
}

impl Connection {
    /// Passes on what has come of a try to read or to write.
    fn note<T>(
        &mut self,
        tried: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if self.end.is_asked(context) {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        if tried.is_ready() {
            let end = Instant::now() + self.idle;
            self.quiet.as_mut().reset(end);
            return tried;
        }
        ready!(self.quiet.as_mut().poll(context));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.handle.open.known().places.remove(&self.handle.id);
        self.handle.open.freed.notify_one();
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.note(tried, context)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(tried, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    const IDLE: Duration = Duration::from_millis(50);
    /// What has to end ends far sooner.
    const PATIENCE: Duration = Duration::from_secs(60);

    async fn listening(most: usize) -> (Connections, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        (Connections::new(listener, most, IDLE), at)
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_is_left() {
        let (mut connections, at) = listening(1).await;
        let _client = TcpStream::connect(at).await.unwrap();
        let (mut connection, _) = connections.accept().await;
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_left_although_there_is_something_for_it() {
        let (mut connections, at) = listening(1).await;
        let _client = TcpStream::connect(at).await.unwrap();
        let (mut connection, _) = connections.accept().await;
        let piece = vec![0; 1 << 20];
        let writing = async {
            loop {
                if let Err(error) = connection.write_all(&piece).await {
                    break error;
                }
            }
        };
        let error = timeout(PATIENCE, writing).await.expect("the connection ends");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    /// Reads until the connection ends, and says why.
    async fn end(connection: &mut Connection) -> ErrorKind {
        connection.read_u8().await.unwrap_err().kind()
    }

    #[tokio::test]
    async fn a_connection_beyond_the_bound_takes_the_place_of_the_one_that_asked_for_nothing_the_longest()
     {
        let (mut connections, at) = listening(2).await;
        let mut clients = Vec::new();
        let mut accepted = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(at).await.unwrap());
            let (connection, _) = connections.accept().await;
            accepted.push(connection);
            if accepted.len() == 2 {
                // After the second one has come.
                accepted[0].handle.asks();
            }
        }
        let ends =
            [end(&mut accepted[1]).await, end(&mut accepted[0]).await, end(&mut accepted[2]).await];
        let quiet = ErrorKind::TimedOut;
        assert_eq!(ends, [ErrorKind::ConnectionAborted, quiet, quiet]);
    }

    #[tokio::test]
    async fn a_connection_that_waits_for_its_client_ends_when_another_takes_its_place() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let mut connections = Connections::new(listener, 1, Duration::from_secs(3600));
        let _one = TcpStream::connect(at).await.unwrap();
        let (mut first, _) = connections.accept().await;
        let reading = tokio::spawn(async move { end(&mut first).await });
        tokio::task::yield_now().await;
        let _other = TcpStream::connect(at).await.unwrap();
        let _second = connections.accept().await;
        let read = timeout(PATIENCE, reading).await.expect("the connection ends");
        assert_eq!(read.unwrap(), ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_connection_that_is_held_keeps_its_place_and_others_wait_if_all_are() {
        let (mut connections, at) = listening(1).await;
        let (_one, _other) =
            (TcpStream::connect(at).await.unwrap(), TcpStream::connect(at).await.unwrap());
        let (first, _) = connections.accept().await;
        let held = first.handle.hold();
        // The waiting connection is taken from the kernel, and dropped with this try.
        assert!(timeout(IDLE, connections.accept()).await.is_err());
        let _third = TcpStream::connect(at).await.unwrap();
        drop(held);
        connections.accept().await;
        drop(first);
        assert_eq!(connections.open.known().places.len(), 0, "nothing is kept of one that ended");
    }
}

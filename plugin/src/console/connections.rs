//! The connections of a server that others reach: a bounded number, and each ends when nothing moves over it.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

/// A listener. Further connections wait in the kernel until one of the accepted ones ends.
pub struct Connections {
    listener: TcpListener,
    places: Arc<Semaphore>,
    idle: Duration,
}

impl Connections {
    /// Accepts at most `most` connections at the same time. One ends when for `idle` no byte could be read or written: its
    /// client says nothing, or takes nothing.
    pub fn new(listener: TcpListener, most: usize, idle: Duration) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(most)), idle }
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("nothing closes the semaphore");
        let (stream, from) = Listener::accept(&mut self.listener).await;
        let quiet = Box::pin(sleep(self.idle));
        (Connection { stream, idle: self.idle, quiet, _place: place }, from)
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
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// Passes on what has come of a try to read or to write.
    fn note<T>(
        &mut self,
        tried: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            let end = Instant::now() + self.idle;
            self.quiet.as_mut().reset(end);
            return tried;
        }
        ready!(self.quiet.as_mut().poll(context));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const IDLE: Duration = Duration::from_millis(50);

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
        let error = loop {
            if let Err(error) = connection.write_all(&piece).await {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_connection_beyond_the_bound_is_accepted_when_another_has_ended() {
        let (mut connections, at) = listening(1).await;
        let (_one, _other) =
            (TcpStream::connect(at).await.unwrap(), TcpStream::connect(at).await.unwrap());
        let (first, _) = connections.accept().await;
        assert!(tokio::time::timeout(IDLE, connections.accept()).await.is_err());
        drop(first);
        connections.accept().await;
    }
}

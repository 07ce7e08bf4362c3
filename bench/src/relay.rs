//! Relays connections to the API server, and counts the bytes that exactly one process receives and sends.
//!
//! The API server's own counters give the bytes of watches by resource, for all clients together, including its own
//! controllers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// The bytes carried so far, including encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes {
    /// From the API server.
    pub received: u64,
    /// To the API server.
    pub sent: u64,
}

#[derive(Default)]
struct Counters {
    received: AtomicU64,
    sent: AtomicU64,
}

/// Relays connections until it is dropped.
pub struct Relay {
    port: u16,
    counters: Arc<Counters>,
    _accepting: AbortOnDropHandle<()>,
}

impl Relay {
    /// Starts a relay to an address such as `127.0.0.1:6443`.
    pub async fn to(address: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port")?;
        let port = listener.local_addr()?.port();
        let counters = Arc::<Counters>::default();
        let counting = counters.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (counters, address) = (counting.clone(), address.clone());
                tokio::spawn(async move {
                    // If the API server cannot be reached, the client's connection is closed.
                    if let Ok(far) = TcpStream::connect(address).await {
                        carry(near, far, &counters).await;
                    }
                });
            }
        });
        Ok(Self { port, counters, _accepting: AbortOnDropHandle::new(accepting) })
    }

    /// Returns the port of 127.0.0.1 on which the relay listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the bytes carried so far.
    pub fn bytes(&self) -> Bytes {
        Bytes {
            received: self.counters.received.load(Ordering::Relaxed),
            sent: self.counters.sent.load(Ordering::Relaxed),
        }
    }
}

async fn carry(near: TcpStream, far: TcpStream, counters: &Counters) {
    // Data must be passed on without waiting for more data.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
    tokio::join!(
        pump(from_near, to_far, &counters.sent),
        pump(from_far, to_near, &counters.received),
    );
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, counter: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        counter.fetch_add(count as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_directions_arrive_and_are_counted() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay::to(server.local_addr().unwrap().to_string()).await.unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", relay.port())).await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        served.read_to_string(&mut heard).await.unwrap();
        served.write_all(b"hi").await.unwrap();
        drop(served);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!((heard.as_str(), answer.as_str()), ("hello", "hi"));
        assert_eq!(relay.bytes(), Bytes { received: 2, sent: 5 });
    }
}

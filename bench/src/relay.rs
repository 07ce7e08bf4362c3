//! Relays connections to the API server, and counts the bytes that exactly one process receives.
//!
//! The API server's own counters give the bytes of watches by resource, for all clients together, including its own
//! controllers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::io::InspectReader;
use tokio_util::task::AbortOnDropHandle;

/// Relays connections until it is dropped.
pub struct Relay {
    /// The port of 127.0.0.1 on which the relay listens.
    pub port: u16,
    received: Arc<AtomicU64>,
    _accepting: AbortOnDropHandle<()>,
}

impl Relay {
    /// Starts a relay to an address such as `127.0.0.1:6443`.
    pub async fn to(address: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port")?;
        let port = listener.local_addr()?.port();
        let received = Arc::<AtomicU64>::default();
        let counting = received.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (received, address) = (counting.clone(), address.clone());
                // If the API server cannot be reached, the client's connection is closed.
                tokio::spawn(async move { carry(near, &address, &received).await });
            }
        });
        Ok(Self { port, received, _accepting: AbortOnDropHandle::new(accepting) })
    }

    /// Returns the bytes received from the API server so far, including encryption.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

async fn carry(mut near: TcpStream, address: &str, received: &AtomicU64) -> io::Result<()> {
    let far = TcpStream::connect(address).await?;
    // Data must be passed on without waiting for more data.
    near.set_nodelay(true).and(far.set_nodelay(true))?;
    let count = |data: &[u8]| {
        received.fetch_add(data.len() as u64, Ordering::Relaxed);
    };
    let mut far = InspectReader::new(far, count);
    let size = 64 << 10;
    tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, size, size).await.map(drop)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn both_directions_arrive_and_the_answers_are_counted() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay::to(server.local_addr().unwrap().to_string()).await.unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", relay.port)).await.unwrap();
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
        assert_eq!(relay.received(), 2);
    }
}

//! Probes of real servers and processes on this machine.

mod exec;
mod grpc;
mod http;
mod loops;
mod spec;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::Check;

/// The time limit for an expected event; no test waits for all of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait for an event that is expected not to come.
const MOMENT: Duration = Duration::from_millis(300);

/// The outcome of a probe, with the message of a failure.
type Reported = Result<Option<String>, String>;

async fn probe(text: &str) -> Reported {
    probe_within(text, PATIENCE).await
}

async fn probe_within(text: &str, limit: Duration) -> Reported {
    let check: Check = text.parse().expect("a check");
    super::check(&check, limit).await.map_err(|failure| failure.to_string())
}

fn failure(reason: &str) -> Reported {
    Err(reason.to_owned())
}

/// A server with unusual answers: it reads the head of each request, and sends the answer byte for byte. The
/// heads that it has read are kept.
struct Odd {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Odd {
    async fn start(answer: impl Into<Vec<u8>>, then_close: bool) -> Self {
        let answer = answer.into();
        let (listener, address) = listen().await;
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let read = heads.clone();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                read.lock().expect("no panic").push(String::from_utf8_lossy(&head).into_owned());
                let _ = stream.write_all(&answer).await;
                if !then_close {
                    open.push(stream);
                }
            }
        });
        Self { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

/// A port that refuses connections: no process listens there, and while the socket lives no other process
/// can.
fn refusing() -> (tokio::net::TcpSocket, SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = socket.local_addr().expect("bound");
    (socket, address)
}

#[tokio::test]
async fn tcp_succeeds_when_a_server_accepts_and_fails_when_none_listens() {
    let (_listener, address) = listen().await;
    assert_eq!(probe(&format!("tcp://{address}")).await, Ok(None));
    let (_socket, address) = refusing();
    assert_eq!(probe(&format!("tcp://{address}")).await, failure("connection refused"));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_a_failure_that_says_so() {
    let error = probe("tcp://absent.invalid:80").await.expect_err("no such host");
    assert!(error.starts_with("no connection: "), "{error}");
}

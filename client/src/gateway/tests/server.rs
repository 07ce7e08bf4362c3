//! A server with TLS that answers beats as a test says.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use beatkeeper_api::beats::{BEATS_PATH, BeatAnswer, BeatAnswers, BeatLease, Beats};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::transport::tests::server::head;

/// A request that has come.
#[derive(Debug, Clone)]
pub struct Received {
    /// The number of its connection, from 1 on.
    pub connection: usize,
    pub token: String,
    pub leases: Vec<BeatLease>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub body: String,
    pub closes: bool,
    pub after: Duration,
}

impl Reply {
    /// The same code for each beat.
    pub fn each(code: u16, received: &Received) -> Self {
        Self::to(received, |_| code)
    }

    /// A code for each beat.
    pub fn to(received: &Received, code: impl Fn(&str) -> u16) -> Self {
        let item = |lease: &BeatLease| {
            let code = code(&lease.name);
            let accepted = |text: &str| (code == 200).then(|| text.to_owned());
            BeatAnswer {
                namespace: lease.namespace.clone(),
                name: lease.name.clone(),
                code,
                ttl: accepted("9s"),
                interval: accepted("3s"),
                reason: None,
                message: Some(format!("told to {}", lease.name)),
                retry_after_seconds: (code == 503).then_some(2),
            }
        };
        let answers = BeatAnswers::of(received.leases.iter().map(item).collect());
        Self::whole(200, &serde_json::to_string(&answers).expect("JSON"))
    }

    /// An answer to the whole request.
    pub fn whole(status: u16, body: &str) -> Self {
        Self { status, body: body.to_owned(), closes: false, after: Duration::ZERO }
    }

    pub fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }
}

type Answer = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

/// A port that nothing else gets while this is kept, also if no server listens there.
pub struct Port(TcpSocket);

impl Port {
    fn any() -> Self {
        let port = Self(Self::socket());
        port.0.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        port
    }

    /// A socket that may share its port with others that do not listen.
    fn socket() -> TcpSocket {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option");
        socket
    }

    fn listen(&self) -> TcpListener {
        let socket = Self::socket();
        socket.bind(self.0.local_addr().expect("an address")).expect("a port");
        socket.listen(1024).expect("a listener")
    }
}

/// A running server, until it is dropped.
pub struct Server {
    pub address: SocketAddr,
    port: Option<Port>,
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(
        tls: Arc<ServerConfig>,
        answer: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(Port::any(), tls, answer).await
    }

    pub async fn start_at(
        port: Port,
        tls: Arc<ServerConfig>,
        answer: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = port.listen();
        let address = listener.local_addr().expect("an address");
        let received = Arc::<Mutex<Vec<Received>>>::default();
        let (log, answer): (_, Answer) = (Arc::clone(&received), Arc::new(answer));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for number in 1.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let tls = TlsAcceptor::from(Arc::clone(&tls));
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                connections.spawn(async move { serve(stream, tls, number, log, answer).await });
            }
        });
        Self { address, port: Some(port), received, task }
    }

    /// Ends it, waits until nothing listens at its port, and returns the port.
    pub async fn stop(mut self) -> Port {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.port.take().expect("a server that runs")
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic").clone()
    }

    /// The number of beats of each request.
    pub fn sizes(&self) -> Vec<usize> {
        self.received().iter().map(|one| one.leases.len()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: TcpStream,
    tls: TlsAcceptor,
    connection: usize,
    log: Arc<Mutex<Vec<Received>>>,
    answer: Answer,
) -> io::Result<()> {
    let mut stream = tls.accept(stream).await?;
    loop {
        let head = head(&mut stream).await?;
        assert!(head.starts_with(&format!("POST {BEATS_PATH} HTTP/1.1\r\n")), "{head}");
        let field = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        };
        let length = field("content-length").and_then(|text| text.parse().ok()).expect("a length");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let beats: Beats = serde_json::from_slice(&body).expect("beats");
        let token = field("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let token = token.unwrap_or_default().to_owned();
        let received = Received { connection, token, leases: beats.leases };
        log.lock().expect("no panic").push(received.clone());
        let reply = answer(&received);
        tokio::time::sleep(reply.after).await;
        let close = if reply.closes { "connection: close\r\n" } else { "" };
        let Reply { status, body, .. } = reply;
        let head = format!("HTTP/1.1 {status} X\r\n{close}content-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await?;
        if reply.closes {
            return stream.shutdown().await;
        }
    }
}

//! A server with TLS on loopback, and the authority that signs its certificates.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

/// Signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, names: &[&str], usage: ExtendedKeyUsagePurpose) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Issues a certificate for a client.
    pub fn client(&self) -> Pair {
        self.issue(&[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Makes the TLS configuration of a server; clients may present certificates of `clients`.
    pub fn serving(&self, clients: Option<&Self>) -> Arc<ServerConfig> {
        let names = ["127.0.0.1", "localhost", "api.example"];
        let pair = self.issue(&names, ExtendedKeyUsagePurpose::ServerAuth);
        let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
        let builder = match clients {
            None => ServerConfig::builder().with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.0.der().clone()).expect("a root");
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
                let verifier = verifier.allow_unauthenticated().build().expect("a verifier");
                ServerConfig::builder().with_client_cert_verifier(verifier)
            }
        };
        Arc::new(builder.with_single_cert(chain, key).expect("a configuration"))
    }
}

/// What the server has received with a request.
pub struct Asked {
    pub head: String,
    /// The client certificate of its connection.
    pub certificate: Option<CertificateDer<'static>>,
}

impl Asked {
    /// The bearer token.
    pub fn token(&self) -> Option<&str> {
        let lines = self.head.lines();
        lines.filter_map(|line| line.split_once(": Bearer ")).map(|(_, token)| token).next()
    }
}

/// Decides the status of the answer to a request.
pub type Judge = Arc<dyn Fn(&Asked) -> u16 + Send + Sync>;

/// A running server, until it is dropped.
pub struct Server {
    pub address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    tls: Mutex<Arc<ServerConfig>>,
    judge: Mutex<Judge>,
    connections: Mutex<usize>,
    /// Connections with a number below the first value are silent from now on; those below the second are
    /// closed.
    fate: watch::Sender<(usize, usize)>,
    open: watch::Sender<usize>,
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().expect("no panic")
}

impl Server {
    pub async fn start(tls: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let accept_all: Judge = Arc::new(|_| 200);
        let state = Arc::new(State {
            tls: Mutex::new(tls),
            judge: Mutex::new(accept_all),
            connections: Mutex::new(0),
            fate: watch::Sender::new((0, 0)),
            open: watch::Sender::new(0),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, task }
    }

    pub fn judge(&self, judge: impl Fn(&Asked) -> u16 + Send + Sync + 'static) {
        *lock(&self.state.judge) = Arc::new(judge);
    }

    /// Uses another certificate. Closes the open connections, as a restart does, and waits until all are
    /// closed.
    pub async fn restart_with(&self, tls: Arc<ServerConfig>) {
        *lock(&self.state.tls) = tls;
        let connections = self.connections();
        self.state.fate.send_modify(|(_, closed)| *closed = connections);
        let _ = self.state.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// Sends nothing more over the existing connections, which stay open.
    pub fn fall_silent(&self) {
        let connections = self.connections();
        self.state.fate.send_modify(|(silent, _)| *silent = connections);
    }

    pub fn connections(&self) -> usize {
        *lock(&self.state.connections)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let number = {
            let mut connections = lock(&state.connections);
            *connections += 1;
            *connections
        };
        let tls = TlsAcceptor::from(Arc::clone(&lock(&state.tls)));
        let state = Arc::clone(&state);
        state.open.send_modify(|open| *open += 1);
        tokio::spawn(async move {
            let _ = serve(stream, tls, &state, number).await;
            state.open.send_modify(|open| *open -= 1);
        });
    }
}

async fn serve(
    stream: TcpStream,
    tls: TlsAcceptor,
    state: &State,
    number: usize,
) -> io::Result<()> {
    let mut stream = tls.accept(stream).await?;
    let mut fate = state.fate.subscribe();
    loop {
        let head = tokio::select! {
            head = head(&mut stream) => head?,
            _ = async { fate.wait_for(|(_, closed)| number <= *closed).await.map(drop) } => {
                stream.shutdown().await?;
                // The connection stays until the other end has closed it.
                return stream.read_to_end(&mut Vec::new()).await.map(drop);
            }
        };
        if number <= state.fate.borrow().0 {
            std::future::pending::<()>().await;
        }
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = certificates.map(|all| all[0].clone().into_owned());
        let judge = Arc::clone(&lock(&state.judge));
        let status = judge(&Asked { head, certificate });
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// Reads the head of a request that has no body.
pub async fn head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A proxy that makes tunnels for clients that know the password, and counts them.
pub async fn proxy(authorization: &'static str) -> (SocketAddr, watch::Receiver<usize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (count, counted) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                let head = head(&mut stream).await?;
                if !head.to_lowercase().contains(&authorization.to_lowercase()) {
                    return stream.write_all(b"HTTP/1.1 407 No\r\n\r\n").await;
                }
                let there = head.split(' ').nth(1).unwrap_or_default();
                let mut there = TcpStream::connect(there).await?;
                stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
                count.send_modify(|count| *count += 1);
                tokio::io::copy_bidirectional(&mut stream, &mut there).await.map(drop)
            });
        }
    });
    (address, counted)
}

/// An address that drops connection attempts, like that of a machine that is gone: its queue is full.
pub async fn dead() -> (SocketAddr, Box<dyn std::any::Any + Send>) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
    let listener = socket.listen(1).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let mut queue = Vec::new();
    let wait = std::time::Duration::from_millis(300);
    while let Ok(Ok(one)) = tokio::time::timeout(wait, TcpStream::connect(address)).await {
        queue.push(one);
    }
    (address, Box::new((listener, queue)))
}

/// An address that accepts connections and sends nothing.
pub async fn mute() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    (listener.local_addr().expect("an address"), listener)
}

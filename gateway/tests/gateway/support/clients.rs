//! Clients of a gateway.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Where a client connects, and what it trusts.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub ca: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub code: u16,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    async fn of<B: hyper::body::Body<Data = Bytes>>(response: Response<B>) -> Self
    where
        B::Error: std::fmt::Debug,
    {
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.expect("the body").to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Self { code: head.status.as_u16(), version: head.version, headers: head.headers, body }
    }

    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    pub fn closes(&self) -> bool {
        self.headers.get("connection").is_some_and(|value| value == "close")
    }
}

impl Target {
    /// A connection with TLS, and nothing else.
    pub async fn tls(&self, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(beatkeeper_gateway::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    }

    pub async fn http1(&self) -> std::io::Result<Client> {
        let stream = TokioIo::new(self.tls("http/1.1").await?);
        let (sender, connection) = http1::handshake(stream).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Client::Http1(sender))
    }

    pub async fn http2(&self) -> std::io::Result<Client> {
        let stream = TokioIo::new(self.tls("h2").await?);
        let handshake = http2::handshake(TokioExecutor::new(), stream).await;
        let (sender, connection) = handshake.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Client::Http2(sender))
    }
}

/// A connection that is kept.
pub enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

pub type Sent = Result<Answer, hyper::Error>;

impl Client {
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Sent {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                Ok(Answer::of(sender.send_request(request).await?).await)
            }
            Self::Http2(sender) => {
                let mut sender = sender.clone();
                sender.ready().await?;
                Ok(Answer::of(sender.send_request(request).await?).await)
            }
        }
    }

    /// Another user of the same HTTP/2 connection.
    pub fn share(&self) -> Self {
        match self {
            Self::Http1(_) => panic!("one request at a time"),
            Self::Http2(sender) => Self::Http2(sender.clone()),
        }
    }

    pub async fn beat(&mut self, lease: &str, token: &str) -> Answer {
        let sent = self.send(beat(lease, token, &renewal())).await;
        sent.expect("an answer")
    }
}

/// What a beat has in its body.
pub fn renewal() -> Value {
    json!({ "spec": { "renewTime": "2026-01-02T03:04:05.678901Z" } })
}

/// The path of a Lease in namespace `shop`.
pub fn path(lease: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/shop/leases/{lease}")
}

/// A beat, or something like it.
pub fn beat(lease: &str, token: &str, body: &Value) -> Request<Full<Bytes>> {
    request("PATCH", &path(lease), Some(token), "application/merge-patch+json", body.to_string())
}

pub fn request(
    method: &str,
    path: &str,
    token: Option<&str>,
    content_type: &str,
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("https://gateway{path}"))
        .header("content-type", content_type);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Full::from(body.into())).unwrap()
}

/// Gets a page of the port for health and metrics.
pub async fn page(address: SocketAddr, path: &str) -> (u16, String) {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "gateway").body(Full::<Bytes>::default());
    let answer = sender.send_request(request.unwrap()).await.unwrap();
    let code: StatusCode = answer.status();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    (code.as_u16(), String::from_utf8(text.to_vec()).unwrap())
}

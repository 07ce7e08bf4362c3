//! Beats through the gateway's own published address, to prove that beats arrive (G3).
//!
//! The connection is kept for a few seconds, and then made anew, as an instance makes one. So a gateway that takes no
//! further connection proves nothing: an instance that has lost its connection could not beat there.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    net::TcpSocket,
    task::AbortHandle,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{
    http::{answer::App, proofs::Proofs},
    tls::{self, ServerTls},
    validity::Validity,
};

/// How long a beat may take, with its handshake.
const WITHIN: Duration = Duration::from_secs(1);
/// How long a connection is used.
const LASTS: Duration = Duration::from_secs(5);
/// The gateway does not look at the time.
const BODY: &str = r#"{"spec":{"renewTime":"2000-01-01T00:00:00.000000Z"}}"#;

/// A beat of the gateway's own has not arrived.
#[derive(Debug, thiserror::Error)]
enum NotProven {
    #[error("the connection: {0}")]
    Connect(#[from] std::io::Error),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error(
        "{}: {cause}; no instance can connect: renew the certificate in this file, which is read again by itself",
        .file.display()
    )]
    Validity { file: PathBuf, cause: rustls::CertificateError },
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request: {0}")]
    Request(#[from] http::Error),
    #[error("it was answered {0}: another gateway may have this address")]
    Code(StatusCode),
    #[error("it was not answered within {WITHIN:?}")]
    Late,
}

/// A connection to the published address.
struct Way {
    sender: SendRequest<Full<Bytes>>,
    until: Instant,
    task: AbortHandle,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers the questions of the replicas, for ever.
pub async fn prove(app: Rc<App>, address: SocketAddr, tls: Rc<ServerTls>) {
    let mut way = None;
    let mut works = true;
    loop {
        let questions = app.hub.questions().await;
        let number = app.proofs.begin(questions);
        let beat = beat(&app, &mut way, number, address, &tls);
        let proven = timeout(WITHIN, beat).await.unwrap_or(Err(NotProven::Late));
        if let Err(error) = &proven {
            app.proofs.give_up(number);
            app.hub.metrics.failed_proofs.inc();
            way = None;
            if works {
                tracing::warn!(%address, %error, "beats may not arrive here: an own beat has not");
            }
        }
        works = proven.is_ok();
    }
}

async fn beat(
    app: &App,
    way: &mut Option<Way>,
    number: u64,
    address: SocketAddr,
    tls: &ServerTls,
) -> Result<(), NotProven> {
    let known = way.take().filter(|way| Instant::now() < way.until && !way.sender.is_closed());
    let way = way.insert(match known {
        Some(known) => known,
        None => connect(&app.proofs, address, tls).await?,
    });
    let lease = Proofs::lease(number);
    let (namespace, name) = (&lease.namespace, &lease.name);
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}");
    let request = Request::patch(path)
        .header(header::HOST, address.to_string())
        .header(header::AUTHORIZATION, format!("Bearer {}", app.proofs.token()))
        .header(header::CONTENT_TYPE, "application/merge-patch+json")
        .body(Full::from(BODY))?;
    way.sender.ready().await?;
    let answer = way.sender.send_request(request).await?;
    let code = answer.status();
    // The connection can be used again when the body was read.
    answer.into_body().collect().await?;
    if code == StatusCode::OK { Ok(()) } else { Err(NotProven::Code(code)) }
}

async fn connect(proofs: &Proofs, address: SocketAddr, tls: &ServerTls) -> Result<Way, NotProven> {
    // Told here, because the error of the handshake would not name the file.
    let checked = Validity::of(&tls.certificate()).and_then(|it| it.check(UnixTime::now()));
    checked.map_err(|cause| NotProven::Validity { file: tls.file().to_owned(), cause })?;
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Own {
            certificate: tls.certificate(),
            provider: tls::provider(),
        }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (socket, any) = match address.ip() {
        IpAddr::V4(_) => (TcpSocket::new_v4()?, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
        IpAddr::V6(_) => (TcpSocket::new_v6()?, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
    };
    socket.bind(SocketAddr::new(any, 0))?;
    // A connection to an address of this host comes from the same address.
    let from = SocketAddr::new(address.ip(), socket.local_addr()?.port());
    let _own = proofs.begin_connection(from);
    let tcp = socket.connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::from(address.ip());
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let task = tokio::task::spawn_local(async move {
        // The request on it fails, too, and tells why.
        let _ = connection.await;
    });
    Ok(Way { sender, until: Instant::now() + LASTS, task: task.abort_handle() })
}

/// Trusts the certificate of this process alone, whatever name it has: the secret is shown to no one else. Outside its
/// validity no instance can connect, so nothing may be proven.
#[derive(Debug)]
struct Own {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Own {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity != self.certificate {
            return Err(rustls::CertificateError::ApplicationVerificationFailure.into());
        }
        Validity::of(end_entity)?.check(now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

//! Certificates, from files that are read again when they change.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, verify_server_name},
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName,
        pem::{self, PemObject},
    },
    server::{
        NoServerSessionStorage, ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier,
    },
};

use crate::settings::{CertificateFiles, PeerFiles};

/// The protocol of the streams, in the TLS handshake. A change that older versions cannot skip gets another number.
pub const STREAM_ALPN: &[u8] = b"beatkeeper-carrier/1";

/// Certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum TlsError {
    #[error("cannot read {}: {cause}", .path.display())]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("{} has no certificate in PEM format", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} has no private key in PEM format", .0.display())]
    NoKey(PathBuf),
    #[error("{} and its key cannot be used: {cause}", .path.display())]
    Unusable { path: PathBuf, cause: rustls::Error },
    #[error("{} cannot be used as a CA: {cause}", .path.display())]
    UnusableCa { path: PathBuf, cause: VerifierBuilderError },
    #[error("{name:?} is no DNS name: {cause}")]
    Name { name: String, cause: InvalidDnsNameError },
    #[error("rustls does not take the settings: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The other end is not who it has to be.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum WrongPeer {
    #[error("it has shown no certificate")]
    NoCertificate,
    #[error("it does not speak the protocol of streams: it has agreed on {0:?}")]
    Protocol(Option<String>),
    #[error("its certificate is not for {name}: {cause}")]
    Name { name: String, cause: rustls::Error },
}

/// The cryptography of this process.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Bytes that cannot be guessed.
///
/// # Errors
/// The machine has none.
pub fn random<const N: usize>() -> Result<[u8; N], rustls::Error> {
    let mut bytes = [0; N];
    let filled = ring::default_provider().secure_random.fill(&mut bytes);
    filled.map_err(|rustls::crypto::GetRandomFailed| rustls::Error::FailedToGetRandomBytes)?;
    Ok(bytes)
}

async fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |cause| TlsError::Read { path: path.to_owned(), cause };
    tokio::fs::read(path).await.map_err(failed)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    chain.ok_or_else(|| TlsError::NoCertificate(path.to_owned()))
}

/// What the files of an end contain.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    ca: Option<Vec<u8>>,
}

impl Contents {
    async fn read(own: &CertificateFiles, ca: Option<&Path>) -> Result<Self, TlsError> {
        let ca = match ca {
            Some(path) => Some(read(path).await?),
            None => None,
        };
        Ok(Self { certificate: read(&own.certificate).await?, key: read(&own.key).await?, ca })
    }

    fn chain(&self, own: &CertificateFiles) -> Result<Chain, TlsError> {
        let chain = certificates(&own.certificate, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| TlsError::NoKey(own.key.clone()))?;
        Ok((chain, key))
    }

    fn roots(&self, path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path, self.ca.as_deref().unwrap_or_default())? {
            let failed = |cause| TlsError::Unusable { path: path.to_owned(), cause };
            roots.add(certificate).map_err(failed)?;
        }
        Ok(Arc::new(roots))
    }
}

type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What a port shows to those that connect, and what it asks of them.
enum Port {
    Beats(CertificateFiles),
    Streams(PeerFiles),
}

/// The TLS of a port, which follows its files.
pub struct ServerTls {
    port: Port,
    contents: RefCell<Contents>,
    current: RefCell<(Arc<ServerConfig>, CertificateDer<'static>)>,
}

impl ServerTls {
    /// The port of the instances.
    ///
    /// # Errors
    /// [`TlsError`].
    pub async fn beats(files: CertificateFiles) -> Result<Self, TlsError> {
        Self::open(Port::Beats(files)).await
    }

    /// The port of the streams. Only those with a certificate of its CA may connect.
    ///
    /// # Errors
    /// [`TlsError`].
    pub async fn streams(files: PeerFiles) -> Result<Self, TlsError> {
        Self::open(Port::Streams(files)).await
    }

    async fn open(port: Port) -> Result<Self, TlsError> {
        let contents = port.read().await?;
        let current = RefCell::new(port.config(&contents)?);
        Ok(Self { port, contents: RefCell::new(contents), current })
    }

    /// The present settings.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.borrow().0.clone()
    }

    /// The certificate that is shown now.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.current.borrow().1.clone()
    }

    /// The file of the certificate that is shown.
    pub fn file(&self) -> &Path {
        match &self.port {
            Port::Beats(files) => &files.certificate,
            Port::Streams(files) => &files.own.certificate,
        }
    }

    /// Reads the files again. Returns whether they have changed. What cannot be used changes nothing.
    ///
    /// # Errors
    /// [`TlsError`].
    pub async fn reread(&self) -> Result<bool, TlsError> {
        let contents = self.port.read().await?;
        if *self.contents.borrow() == contents {
            return Ok(false);
        }
        let config = self.port.config(&contents)?;
        *self.current.borrow_mut() = config;
        *self.contents.borrow_mut() = contents;
        Ok(true)
    }
}

impl Port {
    async fn read(&self) -> Result<Contents, TlsError> {
        match self {
            Self::Beats(files) => Contents::read(files, None).await,
            Self::Streams(files) => Contents::read(&files.own, Some(&files.ca)).await,
        }
    }

    fn config(
        &self,
        contents: &Contents,
    ) -> Result<(Arc<ServerConfig>, CertificateDer<'static>), TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?;
        let (builder, files, protocols) = match self {
            Self::Beats(files) => {
                let protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
                (builder.with_no_client_auth(), files, protocols)
            }
            Self::Streams(files) => {
                let roots = contents.roots(&files.ca)?;
                let failed = |cause| TlsError::UnusableCa { path: files.ca.clone(), cause };
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier = verifier.build().map_err(failed)?;
                (
                    builder.with_client_cert_verifier(verifier),
                    &files.own,
                    vec![STREAM_ALPN.to_vec()],
                )
            }
        };
        let (chain, key) = contents.chain(files)?;
        let first = chain[0].clone();
        let failed = |cause| TlsError::Unusable { path: files.certificate.clone(), cause };
        let mut config = builder.with_single_cert(chain, key).map_err(failed)?;
        config.alpn_protocols = protocols;
        // A resumed handshake saves a tenth, and would let a client in by a certificate that was replaced.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok((Arc::new(config), first))
    }
}

/// Whether the other end of a stream is for this name and this protocol.
///
/// # Errors
/// [`WrongPeer`].
pub fn check_peer(
    certificates: Option<&[CertificateDer<'_>]>,
    protocol: Option<&[u8]>,
    name: &ServerName<'_>,
) -> Result<(), WrongPeer> {
    if protocol != Some(STREAM_ALPN) {
        let found = protocol.map(|name| String::from_utf8_lossy(name).into_owned());
        return Err(WrongPeer::Protocol(found));
    }
    let first = certificates.and_then(<[_]>::first).ok_or(WrongPeer::NoCertificate)?;
    let wrong = |cause| WrongPeer::Name { name: name.to_str().into_owned(), cause };
    let parsed = ParsedCertificate::try_from(first).map_err(wrong)?;
    verify_server_name(&parsed, name).map_err(wrong)
}

/// A DNS name of a certificate.
///
/// # Errors
/// [`TlsError::Name`].
pub fn peer_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    let failed = |cause| TlsError::Name { name: name.to_owned(), cause };
    ServerName::try_from(name.to_owned()).map_err(failed)
}

/// The TLS of the replica's end of a stream, from its files as they are now.
///
/// # Errors
/// [`TlsError`].
pub async fn client(files: &PeerFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let contents = Contents::read(&files.own, Some(&files.ca)).await?;
    let failed = |cause| TlsError::UnusableCa { path: files.ca.clone(), cause };
    let roots = contents.roots(&files.ca)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider());
    let verifier = verifier.build().map_err(failed)?;
    let (chain, key) = contents.chain(&files.own)?;
    let failed = |cause| TlsError::Unusable { path: files.own.certificate.clone(), cause };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .map_err(failed)?;
    config.alpn_protocols = vec![STREAM_ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

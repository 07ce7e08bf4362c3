//! The certificate of the server: of files, which are read again when they change, or made at the start.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use beatkeeper_client::names::hostname;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::controller::host::pod_name;

/// The names of the files, as a Secret of the type kubernetes.io/tls has them.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
/// How often the files are read. The kubelet brings a changed Secret within a minute or two.
const OFTEN: Duration = Duration::from_secs(10);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum CertificateError {
    #[error("cannot read {}, as --metrics-cert-path asks: {cause}", .path.display())]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("{} has no certificate in PEM format", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} has no private key in PEM format", .0.display())]
    NoKey(PathBuf),
    #[error("{CERTIFICATE} and {KEY} in {} cannot be used: {cause}", .folder.display())]
    Unusable { folder: PathBuf, cause: rustls::Error },
    #[error("cannot make a certificate: {0}")]
    SelfSigned(#[from] rcgen::Error),
    #[error("cannot use the certificate that was made: {0}")]
    Tls(#[from] rustls::Error),
}

/// What the files contain.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    async fn read(folder: &Path) -> Result<Self, CertificateError> {
        let read = async |name: &str| {
            let path = folder.join(name);
            let failed = |cause| CertificateError::Read { path: path.clone(), cause };
            tokio::fs::read(&path).await.map_err(failed)
        };
        Ok(Self { certificate: read(CERTIFICATE).await?, key: read(KEY).await? })
    }

    fn parse(&self, folder: &Path) -> Result<CertifiedKey, CertificateError> {
        let chain: Result<Vec<_>, pem::Error> =
            CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain =
            chain.ok_or_else(|| CertificateError::NoCertificate(folder.join(CERTIFICATE)))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| CertificateError::NoKey(folder.join(KEY)))?;
        CertifiedKey::from_der(chain, key, &provider())
            .map_err(|cause| CertificateError::Unusable { folder: folder.to_owned(), cause })
    }
}

fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// The certificate that is shown to clients now.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// A certificate that follows its files.
pub(in crate::controller) struct Certificate {
    current: Arc<Current>,
    files: Option<(PathBuf, Files)>,
}

impl Certificate {
    /// Reads the certificate from a folder, or makes one. Clients cannot verify one that was made.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub(in crate::controller) async fn open(
        folder: Option<&Path>,
    ) -> Result<Self, CertificateError> {
        let (certified, files) = match folder {
            Some(folder) => {
                let files = Files::read(folder).await?;
                (files.parse(folder)?, Some((folder.to_owned(), files)))
            }
            None => (self_signed()?, None),
        };
        Ok(Self { current: Arc::new(Current(RwLock::new(Arc::new(certified)))), files })
    }

    /// The certificate itself, as DER.
    pub(in crate::controller) fn der(&self) -> Vec<u8> {
        let current = self.current.0.read().unwrap_or_else(PoisonError::into_inner);
        // It is made of at least one.
        current.cert.first().map(|certificate| certificate.to_vec()).unwrap_or_default()
    }

    /// The settings of a server that shows this certificate.
    ///
    /// # Errors
    /// rustls does not take the settings.
    pub(in crate::controller) fn server(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Reads the files again and again. What cannot be used changes nothing, and is logged once.
    pub(in crate::controller) async fn follow(mut self) {
        let Some((folder, _)) = &self.files else { return };
        let folder = folder.clone();
        let mut told = String::new();
        loop {
            tokio::time::sleep(OFTEN).await;
            let problem = self.reread(&folder).await.err().map(|error| error.to_string());
            let problem = problem.unwrap_or_default();
            if !problem.is_empty() && problem != told {
                tracing::warn!(error = problem, "the certificate of the metrics stays as it was");
            }
            told = problem;
        }
    }

    async fn reread(&mut self, folder: &Path) -> Result<(), CertificateError> {
        let files = Files::read(folder).await?;
        if self.files.as_ref().is_some_and(|(_, known)| *known == files) {
            return Ok(());
        }
        let certified = Arc::new(files.parse(folder)?);
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
        self.files = Some((folder.to_owned(), files));
        tracing::info!(folder = %folder.display(), "the metrics have the new certificate");
        Ok(())
    }
}

fn self_signed() -> Result<CertifiedKey, CertificateError> {
    let names = [pod_name().unwrap_or_else(hostname), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .map_err(|cause| rustls::Error::General(cause.to_owned()))?;
    Ok(CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("made");
        std::fs::write(folder.join(CERTIFICATE), made.cert.pem()).expect("written");
        std::fs::write(folder.join(KEY), made.signing_key.serialize_pem()).expect("written");
        made.cert.der().clone()
    }

    fn shown(certificate: &Certificate) -> CertificateDer<'static> {
        certificate.current.0.read().expect("no panic").cert[0].clone()
    }

    #[tokio::test]
    async fn a_certificate_follows_its_files_and_ignores_what_cannot_be_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let first = write(folder);
        let mut certificate = Certificate::open(Some(folder)).await.expect("a certificate");
        assert_eq!(shown(&certificate), first);
        let key = std::fs::read(folder.join(KEY)).expect("a key");
        let second = write(folder);
        let written = std::fs::read(folder.join(KEY)).expect("a key");
        for (name, content, why) in [
            (KEY, &key[..], "cannot be used"),
            (KEY, b"no key", "no private key"),
            (CERTIFICATE, b"", "no certificate"),
        ] {
            let before = std::fs::read(folder.join(name)).expect("read");
            std::fs::write(folder.join(name), content).expect("written");
            let error = certificate.reread(folder).await.expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
            assert_eq!(shown(&certificate), first, "{why}");
            std::fs::write(folder.join(name), before).expect("written");
        }
        std::fs::write(folder.join(KEY), written).expect("written");
        certificate.reread(folder).await.expect("the new one");
        assert_eq!(shown(&certificate), second);
        std::fs::remove_file(folder.join(KEY)).expect("removed");
        let error = certificate.reread(folder).await.expect_err("gone").to_string();
        assert!(error.contains("tls.key, as --metrics-cert-path asks"), "{error}");
    }

    #[tokio::test]
    async fn without_files_a_certificate_is_made_that_a_server_can_show() {
        let certificate = Certificate::open(None).await.expect("a certificate");
        assert!(certificate.server().is_ok());
        let other = Certificate::open(None).await.expect("a certificate");
        assert_ne!(shown(&certificate), shown(&other), "each process has its own");
    }
}

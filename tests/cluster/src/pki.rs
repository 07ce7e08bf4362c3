//! Makes the keys and certificates of one control plane in this process.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// The names by which Pods reach the API server: the first address of the Service range, and the Service's names.
const IN_CLUSTER_NAMES: [&str; 4] =
    ["10.96.0.1", "kubernetes", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// The files, and their folder below the data folder.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    folder: PathBuf,
}

/// A certificate and its key, as files.
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pki {
    pub(crate) fn at(data: &Path) -> Self {
        Self { folder: data.join("pki") }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Returns the path of the same certificate as [`Self::ca`], in the format that clients here need.
    pub(crate) fn ca_der(&self) -> PathBuf {
        self.folder.join("ca.der")
    }

    pub(crate) fn serving(&self) -> Identity {
        self.identity("serving")
    }

    pub(crate) fn admin(&self) -> Identity {
        self.identity("admin")
    }

    pub(crate) fn controller_manager(&self) -> Identity {
        self.identity("controller-manager")
    }

    /// Returns the path of the key that signs ServiceAccount tokens: a pair of keys, without a certificate.
    pub(crate) fn service_account_key(&self) -> PathBuf {
        self.folder.join("service-account.key")
    }

    pub(crate) fn service_account_public(&self) -> PathBuf {
        self.folder.join("service-account.pub")
    }

    fn identity(&self, name: &str) -> Identity {
        Identity {
            certificate: self.folder.join(format!("{name}.crt")),
            key: self.folder.join(format!("{name}.key")),
        }
    }

    /// Creates all files. The API server's certificate contains the names by which Pods reach it, if a node has
    /// this address.
    pub(crate) fn create(&self, node_address: Option<Ipv4Addr>) -> Result<()> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot create {}", self.folder.display()))?;
        let ca = ca()?;
        fs::write(self.ca(), ca.pem())?;
        fs::write(self.ca_der(), ca.der())?;

        let mut serving = named("kube-apiserver", None);
        let mut names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        if let Some(address) = node_address {
            names.push(address.to_string());
            names.extend(IN_CLUSTER_NAMES.map(str::to_owned));
        }
        serving.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
        serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        issue(serving, &ca, &self.serving())?;

        // The group is bound to cluster-admin from the start.
        issue(client("beatkeeper-admin", Some("system:masters")), &ca, &self.admin())?;
        issue(client("system:kube-controller-manager", None), &ca, &self.controller_manager())?;

        let signer = KeyPair::generate()?;
        fs::write(self.service_account_key(), signer.serialize_pem())?;
        fs::write(self.service_account_public(), signer.public_key_pem())?;
        Ok(())
    }
}

fn ca() -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = named("beatkeeper-test-ca", None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn named(common_name: &str, organization: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params
}

/// Returns the parameters of a client's certificate. Without extensions it would be X.509 v1, which rustls refuses;
/// the usage makes it v3.
fn client(user: &str, group: Option<&str>) -> CertificateParams {
    let mut params = named(user, group);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn issue(
    mut params: CertificateParams,
    ca: &CertifiedIssuer<'_, KeyPair>,
    to: &Identity,
) -> Result<()> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?;
    fs::write(&to.certificate, certificate.pem())?;
    fs::write(&to.key, key.serialize_pem())?;
    Ok(())
}

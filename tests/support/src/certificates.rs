//! The certificates of gateways and of their operator, from a CA that exists only while they are made.

use std::{fs, path::Path};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// Each folder, and the name in its certificate: what instances see, what the operator sees, and what gateways see.
const ROLES: [(&str, &str); 3] = [
    ("beats", "127.0.0.1"),
    ("streams", "beatkeeper-gateway"),
    ("operator", "beatkeeper-operator"),
];

/// Writes `tls.crt`, `tls.key` and `ca.crt` into the folders `beats`, `streams` and `operator` below this one, as a
/// Secret is mounted. A gateway on 127.0.0.1 uses the first two, and its operator the third.
///
/// # Errors
/// A file cannot be written.
pub fn write_gateway_certificates(folder: &Path) -> Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, "beatkeeper-gateway-ca");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    for (role, name) in ROLES {
        let folder = folder.join(role);
        fs::create_dir(&folder)?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &ca)?;
        fs::write(folder.join("tls.crt"), certificate.pem())?;
        fs::write(folder.join("tls.key"), key.serialize_pem())?;
        fs::write(folder.join("ca.crt"), ca.pem())?;
    }
    Ok(())
}

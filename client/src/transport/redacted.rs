//! Errors told without what they quote.
//!
//! A parser shows what it has found where it fails, and in a kubeconfig, a key or the output of a plugin that is a
//! secret. So the texts of parsers are left out: what remains is what was read, and where in it the mistake is.

use std::error::Error;

use beatkeeper_api::text::plain;
use http::Uri;
use kube::{
    client::{AuthError, RustlsTlsError},
    config::{InClusterError, KubeconfigError, LoadDataError},
};
use rustls::pki_types::pem;

use crate::failure::chain;

/// The longest part of a path that is shown. Where the contents of a file are written in place of its path, they are
/// longer.
const FILE_NAME_MAX: usize = 64;

/// What is wrong with a kubeconfig.
pub(super) fn kubeconfig(error: &KubeconfigError) -> String {
    let what = match error {
        KubeconfigError::Parse(error) => {
            let place = error.location().map_or_else(String::new, |place| {
                format!(" at line {}, column {}", place.line(), place.column())
            });
            return format!("the kubeconfig is no YAML as it should be{place}");
        }
        KubeconfigError::ReadConfig(error, file) => {
            return format!(
                "cannot read the kubeconfig {}: {error}",
                path(&file.to_string_lossy())
            );
        }
        KubeconfigError::LoadCertificateAuthority(error) => ("certificate-authority", data(error)),
        KubeconfigError::LoadClientCertificate(error) => ("client-certificate", data(error)),
        KubeconfigError::LoadClientKey(error) => ("client-key", data(error)),
        KubeconfigError::ParseCertificates(_) => {
            ("certificate-authority", "it holds no certificates as PEM".to_owned())
        }
        other => return plain(&other.to_string()).into_owned(),
    };
    format!("{} of the kubeconfig cannot be used: {}", what.0, what.1)
}

fn data(error: &LoadDataError) -> String {
    match error {
        LoadDataError::DecodeBase64(_) => "its data are no base64".to_owned(),
        LoadDataError::ReadFile(error, file) => {
            format!("{}: {error}", path(&file.to_string_lossy()))
        }
        LoadDataError::NoBase64DataOrFile => "certificate and key need each other".to_owned(),
    }
}

/// What is wrong with what a kubelet has mounted.
pub(super) fn in_cluster(error: &InClusterError) -> String {
    match error {
        InClusterError::ParseCertificates(_) => {
            "the CA bundle of the ServiceAccount holds no certificates as PEM".to_owned()
        }
        other => chain(other),
    }
}

/// What is wrong with PEM.
pub(super) fn pem(error: &pem::Error) -> String {
    let text = match error {
        pem::Error::MissingSectionEnd { .. } => "a section of the PEM has no end",
        pem::Error::IllegalSectionStart { .. } => {
            "a section of the PEM does not begin as it should"
        }
        pem::Error::Base64Decode(_) => "a section of the PEM is no base64",
        pem::Error::NoItemsFound => "the PEM does not hold what it should",
        other => return other.to_string(),
    };
    text.to_owned()
}

/// What kube has found.
pub(super) fn kube(error: &kube::Error) -> String {
    match error {
        kube::Error::InferKubeconfig(error) => kubeconfig(error),
        kube::Error::RustlsTls(RustlsTlsError::InvalidIdentityPem(error)) => {
            format!("the client certificate or its key: {}", pem(error))
        }
        kube::Error::Auth(error) => auth(error),
        other => chain(other),
    }
}

fn auth(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecRun { cmd, out } => {
            let command = cmd.split(' ').next().unwrap_or_default();
            format!("the command {}: {}", path(command), out.status)
        }
        AuthError::AuthExecParse(_) | AuthError::ParseTokenKey(_) => {
            "the output of the command for the credential cannot be read".to_owned()
        }
        AuthError::MalformedTokenExpirationDate(_) => {
            "the time at which the token expires is no time".to_owned()
        }
        other => chain(other),
    }
}

/// What went wrong when kube was asked for a credential.
pub(super) fn credential(error: &(dyn Error + Send + Sync + 'static)) -> String {
    if let Some(error) = error.downcast_ref::<kube::Error>() {
        return kube(error);
    }
    error.downcast_ref::<AuthError>().map_or_else(|| chain(error), auth)
}

/// A path as it was written, but for parts that are longer than the name of a file usually is.
pub(super) fn path(text: &str) -> String {
    let part = |part: &str| match part.chars().nth(FILE_NAME_MAX) {
        None => plain(part).into_owned(),
        Some(_) => "…".to_owned(),
    };
    text.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// The URL of a server, without a user and a password.
pub(super) fn url(uri: &Uri) -> String {
    let scheme = uri.scheme_str().map_or_else(String::new, |scheme| format!("{scheme}://"));
    let port = uri.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{scheme}{}{port}{}", uri.host().unwrap_or_default(), uri.path())
}

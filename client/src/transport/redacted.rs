//! Reports errors without the content that they quote.
//!
//! The error of a parser quotes the text at which it fails. In a kubeconfig, a key or the output of a plugin,
//! that text is a secret. So the texts of parsers are left out. What remains is what was read, and where in
//! it the mistake is.

use std::error::Error;

use beatkeeper_api::text::{plain, plain_error_chain};
use http::Uri;
use kube::{
    client::{AuthError, RustlsTlsError},
    config::{InClusterError, KubeconfigError, LoadDataError},
};
use rustls::pki_types::pem;

/// The longest part of a path that is shown. If the content of a file stands in place of its path, it is
/// longer than this.
const FILE_NAME_MAX: usize = 64;

/// Explains what is wrong with a kubeconfig.
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

/// Explains what is wrong with the files that a kubelet has mounted.
pub(super) fn in_cluster(error: &InClusterError) -> String {
    match error {
        InClusterError::ParseCertificates(_) => {
            "the CA bundle of the ServiceAccount holds no certificates as PEM".to_owned()
        }
        other => plain_error_chain(other),
    }
}

/// Explains what is wrong with PEM data.
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

/// Explains an error of kube.
pub(super) fn kube(error: &kube::Error) -> String {
    match error {
        kube::Error::InferKubeconfig(error) => kubeconfig(error),
        kube::Error::RustlsTls(RustlsTlsError::InvalidIdentityPem(error)) => {
            format!("the client certificate or its key: {}", pem(error))
        }
        kube::Error::Auth(error) => auth(error),
        other => plain_error_chain(other),
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
        other => plain_error_chain(other),
    }
}

/// Explains what went wrong when kube was asked for a credential.
pub(super) fn credential(error: &(dyn Error + Send + Sync + 'static)) -> String {
    if let Some(error) = error.downcast_ref::<kube::Error>() {
        return kube(error);
    }
    error.downcast_ref::<AuthError>().map_or_else(|| plain_error_chain(error), auth)
}

/// Shows a path as it was written, except for parts that are longer than usual file names.
pub(super) fn path(text: &str) -> String {
    let part = |part: &str| match part.chars().nth(FILE_NAME_MAX) {
        None => plain(part).into_owned(),
        Some(_) => "…".to_owned(),
    };
    text.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// Shows the URL of a server, without user and password.
pub(super) fn url(uri: &Uri) -> String {
    let scheme = uri.scheme_str().map_or_else(String::new, |scheme| format!("{scheme}://"));
    let port = uri.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{scheme}{}{port}{}", uri.host().unwrap_or_default(), uri.path())
}

//! Exec plugins: programs that print a credential.
//!
//! They run in parallel to the beats, one call at a time, and well before the last credential expires.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use beatkeeper_api::text::plain;
use http::HeaderValue;
use jiff::Timestamp;
use kube::config::{ExecConfig, ExecInteractiveMode};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use serde::Deserialize;
use serde_json::{error::Category, json};
use tokio::{process::Command, time::timeout};

use super::redacted;

/// A plugin that takes longer is considered hung.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The maximum length of a plugin's error output that is shown, in characters.
const STDERR_SHOWN_MAX: usize = 300;
/// The pause after a credential that has already expired (or seems to, because a clock is wrong).
const RETRY_EXPIRED: Duration = Duration::from_secs(10);
/// The shortest pause between two runs of a plugin.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The credential that a plugin has printed.
pub(super) struct Credential {
    /// Sent with each request.
    pub authorization: Option<HeaderValue>,
    /// Shown in each handshake.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// `None`: it is valid until it is refused.
    pub expires: Option<Timestamp>,
}

/// A plugin has brought no credential.
#[derive(Debug, thiserror::Error)]
#[error("the credential plugin {command}: {cause}")]
pub(super) struct PluginError {
    command: String,
    cause: PluginFailure,
}

/// Why a plugin has brought no credential.
#[derive(Debug, thiserror::Error)]
enum PluginFailure {
    #[error("the kubeconfig names no command")]
    NoCommand,
    #[error("it asks people, and nothing that beats has a terminal")]
    Interactive,
    #[error("it did not end within a minute")]
    TimedOut,
    #[error("{error}{hint}")]
    Start { error: io::Error, hint: String },
    #[error("{status}: {stderr}")]
    Status { status: ExitStatus, stderr: String },
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// What is wrong with the output of a plugin. The text of a parser's error shows the content, which may be the
/// secret, so no such error is kept as the source.
#[derive(Debug, thiserror::Error)]
enum OutputError {
    #[error("it printed no ExecCredential: {wrong} (line {line}, column {column})")]
    NoExecCredential { wrong: &'static str, line: usize, column: usize },
    #[error("the ExecCredential that it printed has no status")]
    NoStatus,
    #[error("its expirationTimestamp is no time")]
    ExpirationTimestamp,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("{field}: {redacted}")]
    Pem { field: &'static str, redacted: String },
    #[error("it printed neither a token nor a client certificate")]
    NoCredential,
}

/// A token that is no value of a header. It is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token cannot be sent in a header")]
pub struct TokenError;

#[derive(Deserialize)]
struct ExecCredential {
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<String>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

/// Runs the plugin. When this future is dropped, the plugin is killed.
pub(super) async fn run(exec: ExecConfig) -> Result<Credential, PluginError> {
    let command = exec.command.clone().unwrap_or_default();
    run_command(&exec, &command).await.map_err(|cause| PluginError { command, cause })
}

async fn run_command(exec: &ExecConfig, command: &str) -> Result<Credential, PluginFailure> {
    if command.is_empty() {
        return Err(PluginFailure::NoCommand);
    }
    if exec.interactive_mode == Some(ExecInteractiveMode::Always) {
        return Err(PluginFailure::Interactive);
    }
    let output = timeout(TIMEOUT, process(exec, command).output()).await;
    let output = output.map_err(|_| PluginFailure::TimedOut)?.map_err(|error| {
        let hint = exec.install_hint.as_deref().unwrap_or_default().trim();
        let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
        PluginFailure::Start { error, hint }
    })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stderr: String = stderr.trim().chars().take(STDERR_SHOWN_MAX).collect();
        let stderr = plain(&stderr).into_owned();
        return Err(PluginFailure::Status { status: output.status, stderr });
    }
    // The output is never shown: it contains secrets.
    Ok(parse(&output.stdout)?)
}

fn process(exec: &ExecConfig, program: &str) -> Command {
    let mut spec = json!({ "interactive": false });
    if exec.provide_cluster_info {
        spec["cluster"] = json!(exec.cluster);
    }
    let version = exec.api_version.as_deref().unwrap_or("client.authentication.k8s.io/v1");
    let info = json!({ "apiVersion": version, "kind": "ExecCredential", "spec": spec });
    let variables = exec.env.iter().flatten();
    let mut command = Command::new(program);
    command
        .args(exec.args.iter().flatten())
        .envs(variables.filter_map(|one| Some((one.get("name")?, one.get("value")?))))
        .env("KUBERNETES_EXEC_INFO", info.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for variable in exec.drop_env.iter().flatten() {
        command.env_remove(variable);
    }
    command
}

fn parse(output: &[u8]) -> Result<Credential, OutputError> {
    let printed: ExecCredential = serde_json::from_slice(output).map_err(|error| {
        let wrong = match error.classify() {
            Category::Data => "not one as Kubernetes describes it",
            Category::Eof => "it ends too early",
            Category::Io | Category::Syntax => "no JSON",
        };
        OutputError::NoExecCredential { wrong, line: error.line(), column: error.column() }
    })?;
    let status = printed.status.ok_or(OutputError::NoStatus)?;
    let expires = status.expiration_timestamp.as_deref().map(str::parse).transpose();
    let expires = expires.map_err(|_| OutputError::ExpirationTimestamp)?;
    let token = status.token.as_deref().map(str::trim).filter(|token| !token.is_empty());
    let authorization = token.map(bearer).transpose()?;
    let identity = match (status.client_certificate_data, status.client_key_data) {
        (Some(certificate), Some(key)) => Some(identity(&certificate, &key)?),
        _ => None,
    };
    if authorization.is_none() && identity.is_none() {
        return Err(OutputError::NoCredential);
    }
    Ok(Credential { authorization, identity, expires })
}

fn identity(
    certificate: &str,
    key: &str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), OutputError> {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>();
    let wrong = |field: &'static str| {
        move |error: pem::Error| OutputError::Pem { field, redacted: redacted::pem(&error) }
    };
    let chain = chain.map_err(wrong("clientCertificateData"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
    Ok((chain, key.map_err(wrong("clientKeyData"))?))
}

/// Makes a header of a token.
pub(super) fn bearer(token: &str) -> Result<HeaderValue, TokenError> {
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value = value.map_err(|_| TokenError)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Returns the pause before the next credential is fetched: three quarters of the lifetime, less if fetching
/// takes long, minus up to a twentieth of the lifetime at random. So a fleet does not fetch at one moment.
pub(super) fn fetch_in(lifetime: Duration, took: Duration, roll: f64) -> Duration {
    if lifetime.is_zero() {
        return RETRY_EXPIRED;
    }
    let lead = (lifetime / 4).max(took * 2).min(lifetime * 3 / 4);
    (lifetime - lead).saturating_sub((lifetime / 20).mul_f64(roll)).max(INTERVAL_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_credential_is_fetched_well_before_it_expires() {
        for (lifetime, took, pause) in [
            (3600, 1, 2700),
            (70, 2, 52),
            (70, 20, 30),
            // Fetching takes nearly as long as the credential is valid.
            (70, 60, 17),
            (12, 1, 9),
            (0, 1, 10),
        ] {
            let pause = seconds(pause);
            let found = fetch_in(seconds(lifetime), seconds(took), 0.0);
            assert!(found.abs_diff(pause) < seconds(1), "{lifetime}, {took}: {found:?}");
            assert!(fetch_in(seconds(lifetime), seconds(took), 1.0) <= found, "{lifetime}, {took}");
        }
    }

    fn shell(script: &str) -> ExecConfig {
        let exec = json!({ "command": "sh", "args": ["-c", script], "interactiveMode": "Never" });
        serde_json::from_value(exec).expect("a plugin")
    }

    #[tokio::test]
    async fn a_plugin_is_told_what_it_may_do_and_what_it_prints_is_understood() {
        let script = r#"
            case $KUBERNETES_EXEC_INFO in *'"interactive":false'*) ;; *) exit 1 ;; esac
            echo '{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1",
                   "status": {"token": "secret", "expirationTimestamp": "2026-11-28T12:00:00Z"}}'"#;
        let said = run(shell(script)).await.expect("a credential");
        assert_eq!(said.authorization.expect("a token"), "Bearer secret");
        assert_eq!(said.expires, Some("2026-11-28T12:00:00Z".parse().expect("a time")));
    }

    #[tokio::test]
    async fn a_plugin_that_fails_is_told_without_what_it_printed() {
        for (script, told) in [
            ("echo secret; echo 'log in\nfirst' >&2; exit 3", "exit status: 3: log in\\nfirst"),
            ("echo secret", "it printed no ExecCredential: no JSON (line 1, column 1)"),
            (
                "echo '\"secret\"'",
                "it printed no ExecCredential: not one as Kubernetes describes it (line 1, column 8)",
            ),
            (
                "echo '{\"status\": \"secret\"}'",
                "it printed no ExecCredential: not one as Kubernetes describes it (line 1, column 19)",
            ),
            ("echo '{}'", "the ExecCredential that it printed has no status"),
            (
                "echo '{\"status\": {\"token\": \"t\", \"expirationTimestamp\": \"secret\"}}'",
                "its expirationTimestamp is no time",
            ),
            (
                "echo '{\"status\": {\"clientCertificateData\": \"\", \"clientKeyData\": \"-----BEGIN secret\"}}'",
                "clientKeyData: a section of the PEM does not begin as it should",
            ),
            ("echo '{\"status\": {}}'", "it printed neither a token nor a client certificate"),
        ] {
            let error = run(shell(script)).await.err().expect("an error").to_string();
            assert_eq!(error, format!("the credential plugin sh: {told}"));
        }
    }
}

//! `beatkeeper gateway` as a process, with certificates, and curl as its client.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use beatkeeper_test_support::write_gateway_certificates;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::api::PostParams;
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;

use super::{TestNamespace, eventually, operator::spawn_from_keeper};

/// The certificates of a gateway and of its operator, in folders as Secrets are mounted.
pub struct Certificates(tempfile::TempDir);

impl Certificates {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_gateway_certificates(folder.path()).unwrap();
        Self(folder)
    }

    /// The certificate of the CA, in DER format.
    pub fn root(&self) -> Vec<u8> {
        let ca = self.of("beats").join("ca.crt");
        CertificateDer::from_pem_file(ca).unwrap().to_vec()
    }

    /// The folder of one of them: `beats`, `streams` or `operator`.
    pub fn of(&self, role: &str) -> PathBuf {
        self.0.path().join(role)
    }
}

/// A running gateway. It is killed when this is dropped.
pub struct Gateway {
    child: Child,
    log: PathBuf,
    ca: PathBuf,
}

impl Gateway {
    /// Starts a gateway as if it ran in the Pod of this name and uid, on free ports of the loopback. `flags` come last.
    pub fn start(
        ns: &TestNamespace,
        certificates: &Certificates,
        pod: (&str, &str),
        flags: &[&str],
    ) -> Self {
        let log = tempfile::Builder::new().prefix("beatkeeper-gateway-").suffix(".log").tempfile();
        let log = log.unwrap().keep().unwrap().1;
        let mut command = Command::new(env!("CARGO_BIN_EXE_beatkeeper"));
        let folder = |flag: &str, role: &str| format!("{flag}={}", certificates.of(role).display());
        command
            .arg("gateway")
            .args([folder("--cert-dir", "beats"), folder("--streams-cert-dir", "streams")])
            .args(["--bind-address=127.0.0.1:0", "--streams-bind-address=127.0.0.1:0"])
            .args(["--health-probe-bind-address=127.0.0.1:0", "--warm-up=0s"])
            .args(flags)
            .env("KUBECONFIG", ns.plane.kubeconfig())
            .env("RUST_LOG", "info,beatkeeper=debug,beatkeeper_gateway=debug")
            .env("POD_NAMESPACE", &ns.name)
            .env("POD_NAME", pod.0)
            .env("POD_UID", pod.1)
            .env("POD_IP", "127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap());
        let child = spawn_from_keeper(command);
        let ca = certificates.of("beats").join("ca.crt");
        Self { child, log, ca }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends SIGTERM and waits until it has ended. Returns whether it exited with 0.
    pub async fn stop(mut self) -> bool {
        self.signal(Signal::TERM);
        let child = &mut self.child;
        eventually("the gateway ends on SIGTERM", async || child.try_wait().unwrap())
            .await
            .success()
    }

    /// Waits until it has ended by itself. Returns whether it exited with 0.
    pub async fn ended(&mut self) -> bool {
        let child = &mut self.child;
        eventually("the gateway ends", async || child.try_wait().unwrap()).await.success()
    }

    pub fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Where it listens: `beats`, `streams` or `admin`.
    pub async fn address(&self, port: &str) -> String {
        let wanted = format!("{port}: ");
        eventually(&format!("the gateway listens for {port}"), async || {
            let log = self.logged();
            let line = log.lines().find(|line| line.contains("listening addresses="))?;
            let rest = line.split_once(&wanted)?.1;
            Some(rest.split([',', ' ', '}']).next()?.to_owned())
        })
        .await
    }

    /// Beats once for an instance with curl, as docs/gateway.md shows it.
    pub async fn beat(&self, namespace: &str, lease: &str, token: &str) -> Beaten {
        let address = self.address("beats").await;
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{lease}");
        let mut curl = tokio::process::Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--write-out",
            "\n%{http_code}",
        ])
        .arg("--cacert")
        .arg(&self.ca)
        .args(["--request", "PATCH", "--header", "Content-Type: application/merge-patch+json"])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(["--data", r#"{"spec":{"renewTime":"2026-01-02T03:04:05.678901Z"}}"#])
        .arg(format!("https://{address}{path}"));
        Beaten::of(&curl.output().await.unwrap())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the gateway's log:\n{}", self.logged());
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

/// The answer to a beat. Code 0: there was none.
#[derive(Debug)]
pub struct Beaten {
    pub code: u16,
    pub message: String,
}

impl Beaten {
    fn of(output: &std::process::Output) -> Self {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let (body, code) = text.rsplit_once('\n').unwrap();
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        Self {
            code: code.parse().unwrap(),
            message: body["message"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

impl TestNamespace {
    /// A token of the ServiceAccount `default` for this audience; of a Pod if one is given by name and uid.
    pub async fn token(&self, audience: &str, pod: Option<(&str, &str)>) -> String {
        let bound = pod.map(|(name, uid)| BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
        });
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![audience.to_owned()],
                bound_object_ref: bound,
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let accounts = self.api::<ServiceAccount>();
        let params = PostParams::default();
        let answer: TokenRequest =
            accounts.create_subresource("token", "default", &params, &request).await.unwrap();
        answer.status.unwrap().token
    }
}

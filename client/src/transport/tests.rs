//! Tests of connections to real servers on loopback, with TLS, while their description changes.

mod changed;
mod credentials;
mod rotation;
mod routes;
mod secrets;
pub(crate) mod server;

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use futures::FutureExt;
use http::{Request, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;
use tower::{BoxError, ServiceExt};

use super::{HttpService, Source, dial, redacted};
use server::{Authority, Server};

/// Long enough for a machine under heavy load.
const PATIENCE: Duration = Duration::from_secs(10);

/// Files that describe how to reach a server, including a kubeconfig.
struct Files {
    folder: TempDir,
    kubeconfig: Value,
}

impl Files {
    /// Describes this server; its CA is in a file.
    fn of(url: &str, authority: &Authority) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "one",
            "clusters": [{ "name": "one", "cluster": { "server": url, "certificate-authority": "ca.crt" } }],
            "users": [{ "name": "one", "user": {} }],
            "contexts": [{ "name": "one", "context": { "cluster": "one", "user": "one" } }],
        });
        let files = Self { folder, kubeconfig };
        files.write("ca.crt", &authority.pem());
        files
    }

    /// The same for a user with these credentials.
    fn with_user(mut self, user: Value) -> Self {
        self.kubeconfig["users"][0]["user"] = user;
        self
    }

    /// Replaces a file by renaming, as a kubelet does.
    fn write(&self, name: &str, content: &str) {
        let draft = self.path("draft");
        fs::write(&draft, content).expect("written");
        fs::rename(draft, self.path(name)).expect("in place");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn source(&self) -> Source {
        self.write("kubeconfig", &self.kubeconfig.to_string());
        Source::kubeconfig(Some(self.path("kubeconfig"))).expect("a kubeconfig")
    }

    fn open(&self) -> HttpService {
        HttpService::open(&self.source(), "test").expect("a way")
    }

    fn open_by(&self, resolver: dial::Resolver) -> HttpService {
        HttpService::open_with(&self.source(), "test", resolver).expect("a way")
    }
}

/// A server, and files that describe how to reach it.
async fn server_and_files() -> (Server, Files, Authority) {
    let authority = Authority::new();
    let server = Server::start(authority.serving(None)).await;
    let files = Files::of(&format!("https://{}", server.address), &authority);
    (server, files, authority)
}

/// Sends one request with a time limit.
async fn ask_within(access: &HttpService, limit: Duration) -> Result<StatusCode, BoxError> {
    let request = Request::get("/livez").body(Body::empty())?;
    Ok(timeout(limit, access.clone().oneshot(request)).await??.status())
}

async fn ask(access: &HttpService) -> Result<StatusCode, BoxError> {
    ask_within(access, PATIENCE).await
}

async fn succeeds(access: &HttpService) {
    assert_eq!(ask(access).await.expect("an answer"), StatusCode::OK);
}

/// A resolver that always returns the same addresses for a name, in this order.
fn always(addresses: Vec<std::net::SocketAddr>) -> dial::Resolver {
    Arc::new(move |_, _| std::future::ready(Ok(addresses.clone())).boxed())
}

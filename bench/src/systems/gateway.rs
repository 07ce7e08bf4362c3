//! Beatkeeper through a gateway: instances register with their Leases, as without one, and beat with requests to a
//! gateway, over TLS and with tokens. The watcher is the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use beatkeeper_api::beats::BEATS_AUDIENCE;
use beatkeeper_api::heartbeat;
use beatkeeper_cluster::Child;
use beatkeeper_test_support::write_gateway_certificates;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::SemaphorePermit;
use tokio_rustls::TlsConnector;

use super::beatkeeper::{self, Leases};
use super::control_plane::{Cluster, NAMESPACE};
use crate::messages::Instance;
use crate::metrics;
use crate::process::{free_port, until_it_answers};
use crate::system::{Part, Registry, Running, Setup};

/// The number of identities, each with a token. A gateway limits how often one may beat.
const IDENTITIES: u32 = 64;
/// The namespace of operator and gateway, in which the election takes place.
const OWN: &str = "default";

/// Starts a control plane, one operator, and one gateway.
pub async fn start(setup: &Setup) -> Result<Running> {
    let cluster = Cluster::start(setup).await?;
    write_gateway_certificates(&setup.data)?;
    write_tokens(&cluster.client, &setup.data).await?;
    let certificates = format!("--gateway-cert-dir={}", setup.data.join("operator").display());
    let elected = "--leader-elect-resource-namespace=default";
    let flags = ["--leader-elect", elected, &certificates];
    let operator = cluster.operator("operator", &cluster.plane.kubeconfig(), &flags)?;
    cluster.until_it_publishes(&operator).await?;
    let gateway = Gateway::start(&cluster, &setup.data).await?;
    let api_server = Part { metrics: None, ..cluster.api_server().await? };
    let parts = vec![operator.part()?, gateway.part()?, cluster.etcd().await?, api_server];
    Ok(Running {
        address: format!("{} {}", gateway.address, cluster.plane.kubeconfig().display()),
        parts,
        version: cluster.version() + ", beats through one gateway",
        keep: Box::new((gateway, operator, cluster)),
    })
}

/// A running gateway. It is killed when this value is dropped.
struct Gateway {
    process: Child,
    address: String,
    metrics: Client,
}

impl Gateway {
    /// Starts a gateway, and waits until it takes beats.
    async fn start(cluster: &Cluster, data: &Path) -> Result<Self> {
        // The Lease of a gateway is owned by its Pod.
        let container = json!({ "name": "gateway", "image": "beatkeeper" });
        let pod = json!({ "metadata": { "name": "edge" }, "spec": { "containers": [container] } });
        let pod: Pod = create(&cluster.client, OWN, pod).await?;
        let [beats, streams, admin] = [free_port()?, free_port()?, free_port()?];
        let address = format!("127.0.0.1:{beats}");
        let mut command = super::control_plane::beatkeeper(&cluster.plane.kubeconfig())?;
        let folder = |role: &str| data.join(role).into_os_string();
        command
            .args(["gateway", "--bind-address", &address, "--warm-up=0s", "--cert-dir"])
            .arg(folder("beats"))
            .arg("--streams-cert-dir")
            .arg(folder("streams"))
            .arg(format!("--streams-bind-address=127.0.0.1:{streams}"))
            .arg(format!("--health-probe-bind-address=127.0.0.1:{admin}"))
            .env("POD_NAMESPACE", OWN)
            .env("POD_NAME", "edge")
            .env("POD_UID", pod.metadata.uid.context("the Pod has no uid")?)
            .env("POD_IP", "127.0.0.1");
        let metrics = metrics::client(&format!("127.0.0.1:{admin}"))?;
        let gateway = Self { process: Child::start("gateway", command, data)?, address, metrics };
        let ready = async || {
            let request = Request::get("/readyz").header("connection", "close").body(Vec::new())?;
            gateway.metrics.request_text(request).await.map(drop).map_err(Into::into)
        };
        until_it_answers(&gateway.process, ready).await?;
        Ok(gateway)
    }

    fn part(&self) -> Result<Part> {
        let metrics = Some(self.metrics.clone());
        Ok(Part { name: "gateway", pid: self.process.pid()?, metrics })
    }
}

/// The file of the token of an identity.
fn token_file(data: &Path, identity: u32) -> PathBuf {
    data.join(format!("token-{identity}"))
}

/// Makes the identities, which may beat for every instance, and writes a token of each.
async fn write_tokens(client: &Client, data: &Path) -> Result<()> {
    let role = json!({ "metadata": { "name": "beats" }, "rules": [
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["patch"] },
        { "apiGroups": ["beatkeeper.dev"], "resources": ["serviceregistrations"], "verbs": ["register"] },
    ] });
    let group = "rbac.authorization.k8s.io";
    let everyone = format!("system:serviceaccounts:{NAMESPACE}");
    let binding = json!({
        "metadata": { "name": "beats" },
        "roleRef": { "apiGroup": group, "kind": "Role", "name": "beats" },
        "subjects": [{ "apiGroup": group, "kind": "Group", "name": everyone }],
    });
    create::<Role>(client, NAMESPACE, role).await?;
    create::<RoleBinding>(client, NAMESPACE, binding).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let request: TokenRequest =
        serde_json::from_value(json!({ "spec": { "audiences": [BEATS_AUDIENCE] } }))?;
    for identity in 0..IDENTITIES {
        let name = format!("beats-{identity}");
        let account = json!({ "metadata": { "name": name } });
        create::<ServiceAccount>(client, NAMESPACE, account).await?;
        let params = PostParams::default();
        let answer: TokenRequest =
            accounts.create_subresource("token", &name, &params, &request).await?;
        fs::write(token_file(data, identity), answer.status.context("no token")?.token)?;
    }
    Ok(())
}

async fn create<K>(client: &Client, namespace: &str, object: Value) -> Result<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + DeserializeOwned,
    K::DynamicType: Default,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    Ok(api.create(&PostParams::default(), &serde_json::from_value(object)?).await?)
}

fn kubeconfig(address: &str) -> Result<(&str, &str)> {
    address.split_once(' ').context("no kubeconfig in the address")
}

/// Follows the slices, as without gateways.
pub async fn watch(address: &str, events: crate::messages::Events) -> Result<()> {
    beatkeeper::watch(kubeconfig(address)?.1, events).await
}

/// Instances whose beats go through the gateway.
pub struct Carried {
    leases: Leases,
    gateway: String,
    tls: TlsConnector,
    tokens: Vec<String>,
    /// Connections without a request under way.
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Carried {
    /// Returns an idle connection, or opens one.
    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut connection) = idle else { break };
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        let tcp = TcpStream::connect(&self.gateway).await?;
        tcp.set_nodelay(true)?;
        let tls = self.tls.connect(ServerName::try_from("127.0.0.1")?, tcp).await?;
        let (connection, driver) = http1::handshake(TokioIo::new(tls)).await?;
        tokio::spawn(driver);
        Ok(connection)
    }

    async fn beat(&self, lease: &str, token: &str) -> Result<()> {
        let patch = serde_json::to_vec(&heartbeat::beat_patch(Timestamp::now()))?;
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{lease}");
        let request = Request::patch(path)
            .header(header::HOST, &self.gateway)
            .header(header::AUTHORIZATION, token)
            .header(header::CONTENT_TYPE, "application/merge-patch+json")
            .body(Full::new(Bytes::from(patch)))?;
        let mut connection = self.connection().await?;
        let answer = connection.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        Ok(())
    }
}

impl Registry for Carried {
    /// The name of the Lease, and the number of the identity.
    type Membership = (String, usize);

    async fn connect(setup: &Setup, address: &str) -> Result<Self> {
        let (gateway, kubeconfig) = kubeconfig(address)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(setup.data.join("beats/ca.crt"))?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let token = |identity| fs::read_to_string(token_file(&setup.data, identity));
        let tokens = (0..IDENTITIES).map(|identity| Ok(format!("Bearer {}", token(identity)?)));
        Ok(Self {
            leases: Leases::connect(setup, kubeconfig).await?,
            gateway: gateway.to_owned(),
            tls: TlsConnector::from(Arc::new(tls)),
            tokens: tokens.collect::<Result<_>>()?,
            idle: Mutex::default(),
        })
    }

    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.leases.turn().await
    }

    /// Registers with a write of the Lease. The first beats may be refused until the operator has seen it.
    async fn join(&self, instance: Instance) -> Result<Self::Membership> {
        let mut membership = (self.leases.join(instance).await?, 0);
        membership.1 = instance as usize % self.tokens.len();
        for _ in 0..50 {
            if self.renew(&mut membership).await.is_ok() {
                return Ok(membership);
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        bail!("the gateway accepts no beat of instance {instance}")
    }

    async fn renew(&self, (lease, identity): &mut Self::Membership) -> Result<()> {
        self.beat(lease, &self.tokens[*identity]).await
    }

    async fn leave(&self, (lease, _): Self::Membership) -> Result<()> {
        self.leases.leave(lease).await
    }
}

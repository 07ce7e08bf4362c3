//! Operators with gateways, and instances that beat through them.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use beatkeeper_api::heartbeat::{self, renew_time};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::{
    Operator, TestNamespace, eventually,
    gateway::{Certificates, Gateway},
};

/// The audience of the tokens.
pub const AUDIENCE: &str = "beatkeeper";
/// The ttl and the interval of the registration. A busy machine may delay a few beats.
pub const TTL: Duration = Duration::from_secs(6);
pub const INTERVAL: Duration = Duration::from_secs(1);
/// The lease duration of the election.
const ELECTION: Duration = Duration::from_secs(3);

/// A namespace with certificates.
pub struct World {
    pub ns: TestNamespace,
    certificates: Certificates,
}

impl World {
    pub async fn new(prefix: &str) -> Self {
        let ns = TestNamespace::new(prefix).await;
        Self { ns, certificates: Certificates::new() }
    }

    /// A replica of the operator, in a Pod of this name.
    pub fn operator(&self, pod: &str) -> Operator {
        let certificates =
            format!("--gateway-cert-dir={}", self.certificates.of("operator").display());
        let duration = format!("--leader-elect-lease-duration={}s", ELECTION.as_secs());
        let flags = [
            &certificates,
            "--leader-elect",
            &duration,
            "--leader-elect-renew-deadline=2s",
            "--cluster-network=203.0.113.0/24",
        ];
        Operator::start_in_pod(pod, &self.ns.plane.kubeconfig(), &self.ns.name, &flags)
    }

    /// A gateway in the Pod of this name. Dropping it is a crash.
    pub async fn gateway(&self, name: &str) -> Gateway {
        let uid = self.ns.pod(name, &["192.0.2.200"], json!({})).await;
        let duration = format!("--leader-elect-lease-duration={}s", ELECTION.as_secs());
        Gateway::start(&self.ns, &self.certificates, (name, &uid), &[&duration])
    }

    /// Renews the Lease of a gateway for it, until the returned value is dropped.
    pub fn renew_the_lease_of(&self, gateway: &'static str) -> Beating {
        let (ns, lease) = (self.ns.clone(), format!("beatkeeper-gateway-{gateway}"));
        let task = tokio::spawn(async move {
            loop {
                let renewed = json!({ "spec": { "renewTime": renew_time(Timestamp::now()) } });
                ns.patch::<Lease>(&lease, renewed).await;
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        });
        Beating { task, accepted: Accepted::new(Mutex::new(Instant::now())) }
    }

    /// Creates the registration, and waits until an operator has seen it.
    pub async fn register(&self) {
        let mut spec = TestNamespace::usual_spec();
        spec["ttl"] = format!("{}s", TTL.as_secs()).into();
        self.ns.register("greeter", spec).await;
        self.ns.looked_at("greeter").await;
    }

    /// The Lease of a Pod that has registered its instance, and the token of the Pod.
    pub async fn registered(&self, pod: &str, ip: &str) -> (Lease, String) {
        let uid = self.ns.pod(pod, &[ip], json!({})).await;
        let beats = self.ns.beats("greeter");
        let lease = beats.create(&beats.in_pod(pod, &uid)).await;
        (lease, self.ns.token(AUDIENCE, Some((pod, &uid))).await)
    }

    /// The file with the certificate of the CA, in PEM format.
    pub fn ca(&self) -> PathBuf {
        self.certificates.of("beats").join("ca.crt")
    }

    /// A Pod that has registered its instance, and its token. It beats through this gateway as soon as it is told to.
    pub async fn instance(&self, pod: &str, ip: &str, gateway: &Gateway) -> Instance {
        let (lease, token) = self.registered(pod, ip).await;
        let address = gateway.address("beats").await;
        let mut config = Config::new(format!("https://{address}").parse().unwrap());
        config.root_cert = Some(vec![self.certificates.root()]);
        config.default_retry = false;
        config.auth_info.token = Some(token.into());
        config.default_namespace = self.ns.name.clone();
        let client = Client::try_from(config).unwrap();
        Instance { leases: Api::default_namespaced(client), lease }
    }

    /// Panics if these addresses are not published at any moment of this time.
    pub async fn stay_published(&self, addresses: &[&str], time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let ready = self.ns.published("greeter").await.ready();
            for address in addresses {
                assert!(ready.contains(*address), "{address} was pruned: {ready:?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// An instance in a Pod. Its only write of its Lease was its creation.
pub struct Instance {
    /// The Leases, through the gateway.
    leases: Api<Lease>,
    /// Its Lease, as it was created.
    pub lease: Lease,
}

impl Instance {
    /// Beats once for its own Lease.
    pub async fn beat(&self) -> kube::Result<Lease> {
        self.beat_for(self.lease.metadata.name.as_ref().unwrap()).await
    }

    /// Beats once for a Lease.
    pub async fn beat_for(&self, lease: &str) -> kube::Result<Lease> {
        let patch = Patch::Merge(heartbeat::beat_patch(Timestamp::now()));
        self.leases.patch(lease, &PatchParams::default(), &patch).await
    }

    /// Waits until a beat for a Lease is refused with this code, and returns the message. While the operator elects a
    /// leader, a beat for any Lease is answered with another one.
    pub async fn refused(&self, lease: &str, code: u16) -> String {
        eventually(&format!("a beat for {lease} is answered with {code}"), async || {
            match self.beat_for(lease).await {
                Err(kube::Error::Api(status)) if status.code == code => Some(status.message),
                _ => None,
            }
        })
        .await
    }

    /// Waits until a beat is accepted.
    pub async fn accepted(&self) {
        eventually("a gateway accepts a beat", async || self.beat().await.ok()).await;
    }

    /// Beats until this is dropped.
    pub fn keep_beating(self) -> Beating {
        let accepted = Accepted::new(Mutex::new(Instant::now()));
        let last = accepted.clone();
        let task = tokio::spawn(async move {
            loop {
                let sent = Instant::now();
                if let Err(error) = self.beat().await {
                    eprintln!("a beat was not accepted: {error}");
                    tokio::time::sleep(INTERVAL / 10).await;
                } else {
                    *last.lock().unwrap() = sent;
                    tokio::time::sleep(INTERVAL).await;
                }
            }
        });
        Beating { task, accepted }
    }
}

type Accepted = Arc<Mutex<Instant>>;

/// Something that beats until this is dropped.
pub struct Beating {
    task: JoinHandle<()>,
    accepted: Accepted,
}

impl Beating {
    /// When the last beat was sent that was accepted. One that was sent later may have arrived as well.
    pub fn last_accepted(&self) -> Instant {
        *self.accepted.lock().unwrap()
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.task.abort();
    }
}

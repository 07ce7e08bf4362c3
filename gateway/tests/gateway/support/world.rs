//! A gateway with a leader.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use beatkeeper_core::carriers::set::PodUid;
use beatkeeper_gateway::{
    identity::{authenticator::Way, claims::Expected},
    run::Ports,
    settings::{Limits, Settings, StreamLimits},
    streams::dial::DialSettings,
};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use super::{
    clients::{Client, Target, page},
    leader::{Leader, heartbeat, in_pod},
    pki::{GATEWAY, OPERATOR, Pki},
    process::Gateway,
    tokens::{AUDIENCE, BESIDES, ISSUER, Published, SigningKey, claims},
    until,
};

pub const POD: &str = "gateway-pod-uid";

/// After so long without a byte a stream counts as broken. A machine that stands still for a moment breaks none.
pub const SILENCE: Duration = Duration::from_secs(3);

fn stream_limits() -> StreamLimits {
    StreamLimits { silence: SILENCE, ..StreamLimits::default() }
}

/// The surroundings of a gateway.
pub struct World {
    pub pki: Pki,
    pub key: SigningKey,
    pub published: Published,
    pub folder: TempDir,
}

/// The Pods whose Leases the leader knows. Beside them, it knows outside instances.
pub const PODS: [&str; 4] = ["a", "b", "c", "d"];

/// What tokens have to say.
pub fn expected() -> Expected {
    let besides = vec![BESIDES.to_owned()];
    Expected { issuer: ISSUER.to_owned(), besides, audience: AUDIENCE.to_owned() }
}

/// Any free port of the loopback.
pub fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A port of the loopback that no other test gets while the socket is kept. Nothing listens there until a gateway does.
pub fn kept_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    // Without this, a gateway could not bind it beside the socket.
    socket.set_reuseaddr(true).unwrap();
    socket.bind(any_port()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new(folder.path(), "authority");
        let key = SigningKey::ecdsa("key-1");
        let published = Published::default();
        published.set(&[&key]);
        Self { pki, key, published, folder }
    }

    /// Small times, so that tests are short.
    pub fn settings(&self) -> Settings {
        Settings {
            pod: POD.to_owned(),
            beats: any_port(),
            streams: any_port(),
            admin: any_port(),
            published: None,
            certificate: self.pki.issue("beats", &["127.0.0.1"]),
            stream_certificate: self.pki.peer("stream", GATEWAY, OPERATOR),
            reread: Duration::from_millis(50),
            lease_duration: Duration::from_millis(100),
            drain: Duration::from_millis(300),
            limits: Limits::default(),
            stream_limits: stream_limits(),
        }
    }

    pub fn ports(&self) -> impl FnOnce() -> Ports + Send + 'static {
        let published = self.published.clone();
        move || Ports { tokens: Way::Keys(Box::new(published)), expected: expected() }
    }

    pub async fn gateway(&self, settings: Settings) -> Gateway {
        Gateway::start(settings, self.ports()).await
    }

    /// How a replica dials.
    pub fn dials(&self, replica: &str) -> DialSettings {
        let files = self.pki.peer(replica, OPERATOR, GATEWAY);
        DialSettings {
            first_pause: Duration::from_millis(20),
            longest_pause: Duration::from_millis(200),
            limits: stream_limits(),
            ..DialSettings::new(replica.into(), files)
        }
    }

    /// A leader for this gateway.
    pub fn leader(&self, gateway: &Gateway) -> Leader {
        self.leader_at(gateway.addresses.streams)
    }

    pub fn leader_at(&self, streams: SocketAddr) -> Leader {
        let gateways = BTreeMap::from([(PodUid::from(POD), streams)]);
        let mut leases: Vec<_> =
            PODS.iter().map(|pod| heartbeat(&format!("reg.{pod}"), in_pod(pod))).collect();
        let outside = beatkeeper_core::objects::heartbeat::Origin::Outside;
        leases.push(heartbeat("reg.vm", outside.clone()));
        leases.push(heartbeat("greeter.vm-1", outside.clone()));
        leases.extend((0..100).map(|n| heartbeat(&format!("reg.vm-{n}"), outside.clone())));
        Leader::start(self.dials("replica-0"), gateways, leases)
    }

    /// The token of a Pod.
    pub fn token(&self, pod: &str) -> String {
        self.key.sign(&claims(pod))
    }

    /// The token of a user that may renew outside instances.
    pub fn agent(&self) -> String {
        let mut claims = claims("agent");
        claims["sub"] = "system:serviceaccount:shop:agent".into();
        claims["kubernetes.io"]["serviceaccount"]["name"] = "agent".into();
        self.key.sign(&claims)
    }

    pub fn target(&self, gateway: &Gateway) -> Target {
        Target { address: gateway.addresses.beats, ca: self.pki.pem() }
    }

    pub async fn client(&self, gateway: &Gateway) -> Client {
        self.target(gateway).http1().await.expect("a connection")
    }
}

/// A gateway that accepts beats.
pub async fn ready(gateway: &Gateway) {
    let address = gateway.addresses.admin;
    until("a stream", async || page(address, "/readyz").await.0 == 200).await;
}

/// A gateway and a leader with the settings that a test changes.
pub async fn served(world: &World, change: impl FnOnce(&mut Settings)) -> (Gateway, Leader) {
    let mut settings = world.settings();
    change(&mut settings);
    let gateway = world.gateway(settings).await;
    let leader = world.leader(&gateway);
    ready(&gateway).await;
    (gateway, leader)
}

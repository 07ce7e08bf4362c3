//! The network of gateways in production: TLS in both directions, by the crate of the gateway.

use std::{collections::BTreeMap, net::SocketAddr};

use beatkeeper_core::carriers::{
    frames::{Down, ReplicaName},
    set::PodUid,
};
use beatkeeper_gateway::{
    settings::{CertificateFiles, PeerFiles},
    streams::dial::{self, DialSettings},
};
use futures::{FutureExt, future::BoxFuture};

use super::{
    args::GatewaySettings,
    port::{Event, Network, Streams},
};

/// Dials with these certificates.
pub(crate) struct Tls(PeerFiles);

impl Tls {
    pub(crate) fn new(settings: &GatewaySettings) -> Self {
        let GatewaySettings { certificates: folder, server_name } = settings;
        let own =
            CertificateFiles { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
        Self(PeerFiles { own, ca: folder.join("ca.crt"), peer: server_name.clone() })
    }
}

impl Network for Tls {
    fn open(&self, replica: ReplicaName) -> Box<dyn Streams> {
        Box::new(dial::Streams::new(DialSettings::new(replica, self.0.clone())))
    }
}

impl Streams for dial::Streams {
    fn dial(&mut self, gateways: &BTreeMap<PodUid, SocketAddr>) {
        dial::Streams::dial(self, gateways);
    }

    fn send(&mut self, gateway: &PodUid, frame: Down) {
        dial::Streams::send(self, gateway, frame);
    }

    fn close(&mut self, gateway: &PodUid) {
        dial::Streams::close(self, gateway);
    }

    fn next(&mut self) -> BoxFuture<'_, (PodUid, Event)> {
        dial::Streams::next(self).boxed()
    }
}

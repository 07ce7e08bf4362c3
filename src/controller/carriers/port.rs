//! The port to the network of gateways. A simulation can play gateways through it.

use std::{collections::BTreeMap, net::SocketAddr};

use beatkeeper_core::carriers::{
    frames::{Down, ReplicaName},
    set::PodUid,
};
use futures::future::BoxFuture;

pub use beatkeeper_gateway::streams::dial::Event;

/// Opens streams.
pub trait Network: Send + Sync + 'static {
    /// The streams of a replica, before it has dialled. Has to be called in a runtime.
    fn open(&self, replica: ReplicaName) -> Box<dyn Streams>;
}

/// The streams of a replica: one to each gateway.
pub trait Streams: Send {
    /// Dials these gateways, and no other ones: the uids of their Pods, and their addresses.
    fn dial(&mut self, gateways: &BTreeMap<PodUid, SocketAddr>);

    /// Sends a frame on the open stream to a gateway, if there is one.
    fn send(&mut self, gateway: &PodUid, frame: Down);

    /// Closes the stream to a gateway. It is dialled again.
    fn close(&mut self, gateway: &PodUid);

    /// The next event. The future may be dropped and asked for again; no event is lost.
    fn next(&mut self) -> BoxFuture<'_, (PodUid, Event)>;
}

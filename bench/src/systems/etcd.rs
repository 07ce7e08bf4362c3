//! etcd: a key for each instance, bound to a lease of the instance, which the instance keeps alive.
//!
//! The messages are the required part of etcd's rpc.proto and kv.proto, by their numbers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail, ensure};
use beatkeeper_cluster::Child;
use futures::{Stream, StreamExt, channel::mpsc, stream};
use prost::Message;
use tokio::sync::oneshot;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{IntoRequest, Streaming};
use tonic_prost::ProstCodec;

use crate::clock;
use crate::messages::{Event, Events, Instance};
use crate::metrics;
use crate::process::{free_port, until_it_answers};
use crate::system::{Part, Registry, Running, Setup};

/// The prefix of the keys.
const PREFIX: &str = "instances/";

/// Starts an etcd that syncs each write to disk, as in production. It has a single member, as all systems here.
pub async fn start(setup: &Setup) -> Result<Running> {
    let folder = beatkeeper_cluster::binaries(beatkeeper_cluster::Progress::Terminal)?;
    let (port, peer) = (free_port()?, free_port()?);
    let [address, peer] = [port, peer].map(|port| format!("http://127.0.0.1:{port}"));
    let mut command = std::process::Command::new(folder.join("etcd"));
    command
        .arg("--data-dir")
        .arg(setup.data.join("etcd"))
        .args(["--listen-client-urls", &address, "--advertise-client-urls", &address])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")]);
    let server = Child::start("etcd", command, &setup.data)?;
    until_it_answers(&server, async || {
        let mut etcd = Etcd::connect(&address).await?;
        etcd.call::<_, Lease>(GRANT, Grant { ttl: 60 }).await.map(drop)
    })
    .await?;
    let metrics = Some(metrics::client(&format!("127.0.0.1:{port}"))?);
    Ok(Running {
        parts: vec![Part { name: "etcd", pid: server.pid()?, metrics }],
        address,
        version: format!("etcd {}, one member, fsync on", beatkeeper_cluster::ETCD_VERSION),
        keep: Box::new(server),
    })
}

/// Watches the keys.
pub async fn watch(address: &str, events: Events) -> Result<()> {
    // The range ends before the first key that is greater than all keys with the prefix.
    let (key, range_end) = (PREFIX.to_owned(), PREFIX.replace('/', "0"));
    let create = Some(WatchCreate { key, range_end });
    // etcd ends a watch when its stream of requests ends, so the stream never ends.
    let requests = stream::iter([WatchRequest { create }]).chain(stream::pending());
    let mut etcd = Etcd::connect(address).await?;
    let mut responses: Streaming<WatchResponse> =
        etcd.stream("/etcdserverpb.Watch/Watch", requests).await?;
    while let Some(response) = responses.message().await? {
        let at = clock::now();
        if response.created {
            events.send(Event::Ready);
        }
        ensure!(!response.canceled, "etcd has ended the watch");
        for KeyEvent { deleted, kv } in response.events {
            if let Some(instance) = kv.and_then(|kv| instance_of(&kv.key)) {
                events.send(Event::Seen { instance, there: deleted == 0, at });
            }
        }
    }
    bail!("etcd has ended the watch")
}

fn key_of(instance: Instance) -> String {
    format!("{PREFIX}{instance}")
}

fn instance_of(key: &[u8]) -> Option<Instance> {
    std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?.parse().ok()
}

/// The client of all instances. All leases are renewed through one stream, as in etcd's own client.
pub struct Leases {
    etcd: Etcd,
    ttl: i64,
    renewals: mpsc::UnboundedSender<LeaseId>,
    waiting: Waiting,
}

/// The senders that wait for the answers to the renewals of each lease, in the order of the requests. Each gets the
/// new ttl, which is 0 for a lost lease.
type Waiting = Arc<Mutex<HashMap<i64, VecDeque<oneshot::Sender<i64>>>>>;

impl Registry for Leases {
    /// The lease.
    type Membership = i64;

    async fn connect(setup: &Setup, address: &str) -> Result<Self> {
        let etcd = Etcd::connect(address).await?;
        let (renewals, sent) = mpsc::unbounded();
        let waiting = Waiting::default();
        tokio::spawn(keep_alive(etcd.clone(), sent, waiting.clone()));
        Ok(Self { etcd, ttl: i64::try_from(setup.ttl.as_secs())?, renewals, waiting })
    }

    async fn join(&self, instance: Instance) -> Result<i64> {
        let mut etcd = self.etcd.clone();
        let granted: Lease = etcd.call(GRANT, Grant { ttl: self.ttl }).await?;
        let put = Put { key: key_of(instance), lease: granted.id };
        let () = etcd.call("/etcdserverpb.KV/Put", put).await?;
        Ok(granted.id)
    }

    async fn renew(&self, lease: &mut i64) -> Result<()> {
        let (ask, answer) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock().expect("no thread panics with it");
            waiting.entry(*lease).or_default().push_back(ask);
        }
        let renewal = LeaseId { id: *lease };
        self.renewals.unbounded_send(renewal).context("the stream of renewals has ended")?;
        ensure!(answer.await? > 0, "the lease is lost");
        Ok(())
    }

    async fn leave(&self, id: i64) -> Result<()> {
        self.etcd.clone().call("/etcdserverpb.Lease/LeaseRevoke", LeaseId { id }).await
    }
}

/// Sends the renewals of all leases, and passes the answers on.
async fn keep_alive(mut etcd: Etcd, sent: mpsc::UnboundedReceiver<LeaseId>, waiting: Waiting) {
    // The stream is not awaited before the first renewal: etcd answers nothing until it has one renewal to answer.
    let answers = etcd.stream("/etcdserverpb.Lease/LeaseKeepAlive", sent).await;
    let mut answers: Streaming<Lease> = match answers {
        Ok(answers) => answers,
        Err(error) => return eprintln!("etcd takes no renewals: {error:#}"),
    };
    while let Ok(Some(answer)) = answers.message().await {
        let mut waiting = waiting.lock().expect("no thread panics with it");
        if let Some(asker) = waiting.get_mut(&answer.id).and_then(VecDeque::pop_front) {
            let _ = asker.send(answer.ttl);
        }
    }
}

/// A connection; cheap to clone.
#[derive(Clone)]
struct Etcd(Grpc<Channel>);

impl Etcd {
    async fn connect(address: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(address.to_owned())?.tcp_nodelay(true);
        Ok(Self(Grpc::new(endpoint.connect().await?)))
    }

    /// Sends a request. Of an answer `()` no field is read.
    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        self.0.ready().await?;
        let (path, codec) = (PathAndQuery::from_static(path), ProstCodec::<Q, A>::default());
        Ok(self.0.unary(request.into_request(), path, codec).await?.into_inner())
    }

    async fn stream<Q, A>(
        &mut self,
        path: &'static str,
        requests: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        self.0.ready().await?;
        let (path, codec) = (PathAndQuery::from_static(path), ProstCodec::<Q, A>::default());
        Ok(self.0.streaming(requests.into_request(), path, codec).await?.into_inner())
    }
}

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";

/// LeaseGrantRequest.
#[derive(Clone, PartialEq, Message)]
struct Grant {
    #[prost(int64, tag = "1")]
    ttl: i64,
}

/// LeaseKeepAliveRequest and LeaseRevokeRequest.
#[derive(Clone, PartialEq, Message)]
struct LeaseId {
    #[prost(int64, tag = "1")]
    id: i64,
}

/// LeaseGrantResponse and LeaseKeepAliveResponse.
#[derive(Clone, PartialEq, Message)]
struct Lease {
    #[prost(int64, tag = "2")]
    id: i64,
    /// 0 for a lost lease.
    #[prost(int64, tag = "3")]
    ttl: i64,
}

/// PutRequest.
#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(int64, tag = "3")]
    lease: i64,
}

#[derive(Clone, PartialEq, Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create: Option<WatchCreate>,
}

#[derive(Clone, PartialEq, Message)]
struct WatchCreate {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    range_end: String,
}

#[derive(Clone, PartialEq, Message)]
struct WatchResponse {
    #[prost(bool, tag = "3")]
    created: bool,
    #[prost(bool, tag = "4")]
    canceled: bool,
    #[prost(message, repeated, tag = "11")]
    events: Vec<KeyEvent>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyEvent {
    /// 1 for a deletion.
    #[prost(int32, tag = "1")]
    deleted: i32,
    #[prost(message, optional, tag = "2")]
    kv: Option<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_found_in_its_key_and_in_no_other() {
        assert_eq!(instance_of(key_of(17).as_bytes()), Some(17));
        assert_eq!(instance_of(b"others/17"), None);
        assert_eq!(instance_of(b"instances/x"), None);
    }
}

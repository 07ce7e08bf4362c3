//! etcd: a key for each instance, bound to a lease of the instance, which the instance keeps alive.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail, ensure};
use futures::channel::mpsc;
use tokio::sync::oneshot;
use tonic::transport::Endpoint;

use super::{Absent, Part, Registry, Running, Setup};
use crate::clock::Moment;
use crate::process::{self, Server};
use crate::words::{Event, Instance, Tell};

mod rpc;

use rpc::{EventType, Rpc};

/// The prefix of the keys.
const PREFIX: &str = "instances/";

/// Starts an etcd that syncs each write to disk, as in production. It has a single member, as all systems here.
pub async fn start(setup: &Setup) -> Result<Running> {
    let folder = beatkeeper_cluster::binaries(beatkeeper_cluster::Progress::Terminal)
        .map_err(|error| Absent(format!("no etcd: {error:#}")))?;
    let (port, peer) = (process::free_port()?, process::free_port()?);
    let address = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{peer}");
    let mut command = std::process::Command::new(folder.join("etcd"));
    command
        .arg("--data-dir")
        .arg(setup.data.join("etcd"))
        .args(["--listen-client-urls", &address, "--advertise-client-urls", &address])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")]);
    let server = Server::start("etcd", command, &setup.data)?;
    process::until_it_answers(&server, async || {
        let rpc = Rpc::connect(&address).await?;
        rpc.lease_grant(60).await.map(drop)
    })
    .await?;
    Ok(Running {
        parts: vec![Part {
            metrics: Some(format!("127.0.0.1:{port}")),
            ..Part::new("etcd", server.pid())
        }],
        address,
        version: format!("etcd {}, one member, fsync on", beatkeeper_cluster::ETCD_VERSION),
        keep: Box::new(server),
    })
}

/// Watches the keys.
pub async fn watch(address: &str, tell: Tell) -> Result<()> {
    let rpc = Rpc::connect(address).await?;
    let mut responses = rpc.watch(PREFIX).await?;
    let mut known = HashSet::new();
    while let Some(response) = responses.message().await? {
        let at = Moment::now();
        if response.created {
            tell.tell(Event::Ready);
        }
        ensure!(!response.canceled, "etcd has ended the watch");
        for event in response.events {
            let key = event.kv.as_ref().map(|kv| kv.key.as_slice()).unwrap_or_default();
            let Some(instance) = instance_of(key) else { continue };
            if event.kind() == EventType::Delete {
                known.remove(&instance);
                tell.tell(Event::Gone { instance, at });
            } else if known.insert(instance) {
                tell.tell(Event::There { instance, at });
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
    rpc: Rpc,
    ttl: i64,
    renewals: mpsc::UnboundedSender<rpc::LeaseKeepAliveRequest>,
    waiting: Waiting,
}

/// The senders that wait for the answers to the renewals of each lease, in the order of the requests. Each gets the
/// new ttl, which is 0 for a lost lease.
type Waiting = Arc<Mutex<HashMap<i64, VecDeque<oneshot::Sender<i64>>>>>;

impl Leases {
    /// Connects.
    pub async fn connect(address: &str, ttl: std::time::Duration) -> Result<Self> {
        let rpc = Rpc::connect(address).await?;
        let (renewals, sent) = mpsc::unbounded();
        let waiting = Waiting::default();
        let (stream, asked) = (rpc.clone(), waiting.clone());
        tokio::spawn(async move {
            // The stream is not awaited before the first renewal: etcd answers nothing until it has one renewal to
            // answer.
            let mut answers = match stream.keep_alive(sent).await {
                Ok(answers) => answers,
                Err(error) => return eprintln!("etcd takes no renewals: {error:#}"),
            };
            while let Ok(Some(answer)) = answers.message().await {
                let mut asked = asked.lock().expect("nobody panics with it");
                if let Some(asker) = asked.get_mut(&answer.id).and_then(VecDeque::pop_front) {
                    let _ = asker.send(answer.ttl);
                }
            }
        });
        Ok(Self { rpc, ttl: i64::try_from(ttl.as_secs())?, renewals, waiting })
    }
}

impl Registry for Leases {
    /// The lease.
    type Membership = i64;

    async fn join(&self, instance: Instance) -> Result<i64> {
        let lease = self.rpc.lease_grant(self.ttl).await?;
        self.rpc.put(&key_of(instance), lease).await?;
        Ok(lease)
    }

    async fn renew(&self, lease: &mut i64) -> Result<()> {
        let (ask, answer) = oneshot::channel();
        self.waiting
            .lock()
            .expect("nobody panics with it")
            .entry(*lease)
            .or_default()
            .push_back(ask);
        self.renewals
            .unbounded_send(rpc::LeaseKeepAliveRequest { id: *lease })
            .context("the stream of renewals has ended")?;
        ensure!(answer.await? > 0, "the lease is lost");
        Ok(())
    }

    async fn leave(&self, lease: i64) -> Result<()> {
        self.rpc.lease_revoke(lease).await
    }
}

impl Rpc {
    async fn connect(address: &str) -> Result<Self> {
        let channel =
            Endpoint::from_shared(address.to_owned())?.tcp_nodelay(true).connect().await?;
        Ok(Self::new(channel))
    }
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

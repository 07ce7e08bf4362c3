//! ZooKeeper: an ephemeral node for each instance, which lives as long as the instance's own session.

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use beatkeeper_cluster::Child;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zookeeper_client::{Acls, AddWatchMode, Client, CreateMode, Error, EventType, SessionState};

use crate::clock;
use crate::messages::{Event, Events, Instance};
use crate::process::{free_port, until_it_answers};
use crate::system::{Part, Registry, Running, Setup};

/// The parent of the nodes.
const FOLDER: &str = "/instances";

/// Starts a ZooKeeper that syncs each write to disk, with the default tick of two seconds.
pub async fn start(setup: &Setup) -> Result<Running> {
    let port = free_port()?;
    let data = setup.data.join("zookeeper");
    std::fs::create_dir_all(&data)?;
    let file = setup.data.join("zookeeper.cfg");
    let config = [
        format!("dataDir={}", data.display()),
        format!("clientPortAddress=127.0.0.1\nclientPort={port}\ntickTime=2000"),
        // Each session has a connection of its own, and all come from this machine.
        "maxClientCnxns=0\nadmin.enableServer=false\n".to_owned(),
    ];
    std::fs::write(&file, config.join("\n"))?;
    // scripts/peers makes this command.
    let mut command = Command::new("zookeeper");
    command.arg(file);
    let server = Child::start("zookeeper", command, &setup.data)?;
    let address = format!("127.0.0.1:{port}");
    until_it_answers(&server, async || make_folder(&address).await).await?;
    let version = version(&address).await?;
    Ok(Running {
        parts: vec![Part { name: "zookeeper", pid: server.pid()?, metrics: None }],
        address,
        version: format!("ZooKeeper {version}, one server, tickTime 2000, fsync on"),
        keep: Box::new(server),
    })
}

async fn make_folder(address: &str) -> Result<()> {
    let client = Client::connect(address).await?;
    let mode = CreateMode::Persistent.with_acls(Acls::anyone_all());
    match client.create(FOLDER, b"", &mode).await {
        Ok(_) | Err(Error::NodeExists) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Asks the server for its version, by the command `srvr`. It answers `Zookeeper version: 3.8.0-…, built on …`.
async fn version(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"srvr").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let version =
        answer.strip_prefix("Zookeeper version: ").and_then(|rest| rest.split(['-', ',']).next());
    Ok(version.with_context(|| format!("no version: {answer}"))?.to_owned())
}

/// Watches the nodes.
pub async fn watch(address: &str, events: Events) -> Result<()> {
    // The longest timeout that the server allows: the server may be suspended, and the watcher's own session must
    // survive this.
    let connector = Client::connector().with_session_timeout(Duration::from_secs(40));
    let client = connector.connect(address).await?;
    let mut watcher = client.watch(FOLDER, AddWatchMode::PersistentRecursive).await?;
    events.send(Event::Ready);
    let mut known = HashSet::new();
    loop {
        let event = watcher.changed().await;
        let at = clock::now();
        match event.event_type {
            EventType::NodeCreated | EventType::NodeDeleted => {
                let there = event.event_type == EventType::NodeCreated;
                let name = event.path.strip_prefix(FOLDER).and_then(|name| name.strip_prefix('/'));
                if let Some(instance) = name.and_then(|name| name.parse().ok()) {
                    if there {
                        known.insert(instance)
                    } else {
                        known.remove(&instance)
                    };
                    events.send(Event::Seen { instance, there, at });
                }
            }
            EventType::Session if event.session_state == SessionState::SyncConnected => {
                // zookeeper-client 0.11.2 does not register a persistent watch again on a new connection.
                watcher = client.watch(FOLDER, AddWatchMode::PersistentRecursive).await?;
                compare(&client, &mut known, &events).await?;
            }
            EventType::Session => {
                let state = event.session_state;
                ensure!(!state.is_terminated(), "the watcher's session has ended: {state}");
            }
            _ => {}
        }
    }
}

/// No event reports what changes while the connection is broken (ZOOKEEPER-4698). So the watcher compares the nodes
/// afterwards.
async fn compare(client: &Client, known: &mut HashSet<Instance>, events: &Events) -> Result<()> {
    let nodes = client.list_children(FOLDER).await?;
    let at = clock::now();
    let now: HashSet<Instance> = nodes.iter().filter_map(|name| name.parse().ok()).collect();
    for &instance in known.symmetric_difference(&now) {
        events.send(Event::Seen { instance, there: now.contains(&instance), at });
    }
    *known = now;
    Ok(())
}

/// Makes a session for each instance.
pub struct Sessions {
    address: String,
    ttl: Duration,
}

/// The session of an instance, and its node.
pub struct Session {
    client: Client,
    path: String,
}

impl Registry for Sessions {
    type Membership = Session;

    /// Each instance connects by itself.
    async fn connect(setup: &Setup, address: &str) -> Result<Self> {
        Ok(Self { address: address.to_owned(), ttl: setup.ttl })
    }

    async fn join(&self, instance: Instance) -> Result<Session> {
        // A detached session is not closed when it is dropped: the instance falls silent, and its connection
        // breaks, as when a process is killed.
        let connector = Client::connector().with_session_timeout(self.ttl).with_detached();
        let client = connector.connect(&self.address).await.context("no session")?;
        let path = format!("{FOLDER}/{instance}");
        let mode = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
        match client.create(&path, b"", &mode).await {
            Ok(_) => {}
            // The node belongs to an earlier session of the instance, which the server has not expired yet.
            Err(Error::NodeExists) => {
                client.delete(&path, None).await?;
                client.create(&path, b"", &mode).await?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Session { client, path })
    }

    /// Renews the session by a request, as every request does. The client's own pings come only after 3/8 of the
    /// ttl without a request, which is longer than the interval.
    async fn renew(&self, session: &mut Session) -> Result<()> {
        session.client.check_stat(&session.path).await?.context("the node is lost")?;
        Ok(())
    }

    async fn leave(&self, session: Session) -> Result<()> {
        session.client.delete(&session.path, None).await?;
        Ok(())
    }
}

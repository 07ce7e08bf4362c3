//! ZooKeeper: an ephemeral node for each instance, which lives as long as the instance's own session.

use std::collections::HashSet;
use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use zookeeper_client::{Acls, AddWatchMode, Client, CreateMode, Error, EventType, SessionState};

use crate::clock::Moment;
use crate::messages::{Event, Events, Instance};
use crate::process::{self, Server};
use crate::system::{Part, Registry, Running, Setup};

/// The parent of the nodes.
const FOLDER: &str = "/instances";

/// Starts a ZooKeeper that syncs each write to disk, with the default tick of two seconds.
pub async fn start(setup: &Setup) -> Result<Running> {
    let (mut command, version) = super::installed::zookeeper(setup)?;
    let port = process::free_port()?;
    let data = setup.data.join("zookeeper");
    std::fs::create_dir_all(&data)?;
    let mut config = String::new();
    writeln!(config, "dataDir={}", data.display())?;
    writeln!(config, "clientPortAddress=127.0.0.1\nclientPort={port}\ntickTime=2000")?;
    // Each session has a connection of its own, and all come from this machine.
    writeln!(config, "maxClientCnxns=0\nadmin.enableServer=false")?;
    let file = setup.data.join("zookeeper.cfg");
    std::fs::write(&file, config)?;
    command.arg("org.apache.zookeeper.server.ZooKeeperServerMain").arg(file);
    let server = Server::start("zookeeper", command, &setup.data)?;
    let address = format!("127.0.0.1:{port}");
    server
        .until_it_answers(async || {
            let client = Client::connect(&address).await?;
            match client
                .create(FOLDER, b"", &CreateMode::Persistent.with_acls(Acls::anyone_all()))
                .await
            {
                Ok(_) | Err(Error::NodeExists) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
        .await?;
    Ok(Running {
        parts: vec![Part { name: "zookeeper", pid: server.pid(), metrics: None }],
        address,
        version: format!("ZooKeeper {version}, one server, tickTime 2000, fsync on"),
        keep: Box::new(server),
    })
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
        let at = Moment::now();
        let instance = event.path.strip_prefix(FOLDER).and_then(|name| name.get(1..)?.parse().ok());
        match (event.event_type, instance) {
            (EventType::NodeCreated, Some(instance)) if known.insert(instance) => {
                events.seen(instance, true, at);
            }
            (EventType::NodeDeleted, Some(instance)) if known.remove(&instance) => {
                events.seen(instance, false, at);
            }
            (EventType::Session, _) if event.session_state == SessionState::SyncConnected => {
                compare(&client, &mut known, &events).await?;
            }
            (EventType::Session, _) => {
                let state = event.session_state;
                anyhow::ensure!(!state.is_terminated(), "the watcher's session has ended: {state}");
            }
            _ => {}
        }
    }
}

/// No event reports what changes while the connection is broken (ZOOKEEPER-4698). So the watcher compares the nodes
/// afterwards.
async fn compare(client: &Client, known: &mut HashSet<Instance>, events: &Events) -> Result<()> {
    let nodes = client.list_children(FOLDER).await?;
    let at = Moment::now();
    let now: HashSet<Instance> = nodes.iter().filter_map(|name| name.parse().ok()).collect();
    for &instance in known.difference(&now) {
        events.seen(instance, false, at);
    }
    for &instance in now.difference(known) {
        events.seen(instance, true, at);
    }
    *known = now;
    Ok(())
}

/// Makes a session for each instance.
pub struct Sessions {
    address: String,
    ttl: Duration,
}

impl Sessions {
    /// Makes the client. Each instance connects by itself.
    pub fn new(address: &str, ttl: Duration) -> Self {
        Self { address: address.to_owned(), ttl }
    }
}

/// The session of an instance, and its node.
pub struct Session {
    client: Client,
    path: String,
}

impl Registry for Sessions {
    type Membership = Session;

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

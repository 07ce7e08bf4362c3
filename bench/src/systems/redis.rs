//! Redis: a key with an expiry for each instance, and keyspace notifications.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use beatkeeper_cluster::Child;
use futures::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};

use crate::clock;
use crate::messages::{Event, Events, Instance};
use crate::process::{free_port, until_it_answers};
use crate::system::{Part, Registry, Running, Setup};

/// The prefix of the keys.
const PREFIX: &str = "instance:";

/// Starts a Redis that keeps all data in memory: its low cost in this mode is the reason to choose Redis.
pub async fn start(setup: &Setup) -> Result<Running> {
    let port = free_port()?;
    // scripts/peers unpacks it.
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
        .args(["--appendonly", "no", "--daemonize", "no"])
        .arg("--dir")
        .arg(&setup.data)
        // Publishes keyevent notifications of string commands, generic commands and expiries.
        .args(["--notify-keyspace-events", "E$gx"]);
    let server = Child::start("redis", command, &setup.data)?;
    let address = format!("redis://127.0.0.1:{port}/");
    until_it_answers(&server, async || connect(&address).await.map(drop)).await?;
    let mut connection = connect(&address).await?;
    let about: redis::InfoDict = redis::cmd("INFO").query_async(&mut connection).await?;
    let version: String = about.get("redis_version").context("Redis has no version")?;
    add_ballast(connection, setup.ballast).await?;
    Ok(Running {
        parts: vec![Part { name: "redis", pid: server.pid()?, metrics: None }],
        address,
        version: format!("Redis {version}, not persistent, default hz 10"),
        keep: Box::new(server),
    })
}

/// Adds other keys with an expiry. Redis finds expired keys by random samples of all keys with an expiry, so other
/// keys affect the lag.
async fn add_ballast(mut connection: MultiplexedConnection, keys: u32) -> Result<()> {
    for key in 0..keys {
        redis::cmd("SET")
            .arg(format!("other:{key}"))
            .arg("")
            .arg("EX")
            .arg(86_400)
            .exec_async(&mut connection)
            .await?;
    }
    Ok(())
}

async fn connect(address: &str) -> Result<MultiplexedConnection> {
    // The loader has its own timeouts, which are the same for all systems.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(Client::open(address)?.get_multiplexed_async_connection_with_config(&config).await?)
}

/// Watches the notifications.
pub async fn watch(address: &str, events: Events) -> Result<()> {
    let mut subscription = Client::open(address)?.get_async_pubsub().await?;
    subscription.psubscribe("__keyevent@0__:*").await?;
    events.send(Event::Ready);
    let mut messages = subscription.into_on_message();
    while let Some(message) = messages.next().await {
        let at = clock::now();
        let there = match message.get_channel_name().rsplit(':').next() {
            Some("set") => true,
            Some("expired" | "del") => false,
            _ => continue,
        };
        let key: String = message.get_payload()?;
        if let Some(instance) = key.strip_prefix(PREFIX).and_then(|name| name.parse().ok()) {
            events.send(Event::Seen { instance, there, at });
        }
    }
    bail!("Redis has ended the subscription")
}

/// The client of all instances, over one pipelined connection.
pub struct Keys {
    connection: MultiplexedConnection,
    ttl_millis: u64,
}

impl Registry for Keys {
    /// The key.
    type Membership = String;

    async fn connect(setup: &Setup, address: &str) -> Result<Self> {
        let ttl_millis = u64::try_from(setup.ttl.as_millis())?;
        Ok(Self { connection: connect(address).await?, ttl_millis })
    }

    async fn join(&self, instance: Instance) -> Result<String> {
        let key = format!("{PREFIX}{instance}");
        let mut connection = self.connection.clone();
        let mut set = redis::cmd("SET");
        set.arg(&key).arg("").arg("PX").arg(self.ttl_millis);
        set.exec_async(&mut connection).await.context("SET")?;
        Ok(key)
    }

    async fn renew(&self, key: &mut String) -> Result<()> {
        let mut connection = self.connection.clone();
        let mut expire = redis::cmd("PEXPIRE");
        expire.arg(&*key).arg(self.ttl_millis);
        let renewed: bool = expire.query_async(&mut connection).await?;
        ensure!(renewed, "the key is lost");
        Ok(())
    }

    async fn leave(&self, key: String) -> Result<()> {
        let mut connection = self.connection.clone();
        redis::cmd("DEL").arg(key).exec_async(&mut connection).await?;
        Ok(())
    }
}

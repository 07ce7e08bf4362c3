//! Measures the lag and the cost of Beatkeeper, compared with the systems that are used instead.
//!
//! `measure` is the driver. It starts a system, and the loader and the watcher as processes of their own. These
//! processes run this same program.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod clients;
mod clock;
mod context;
mod cost;
mod crew;
mod drive;
mod ledger;
mod load;
mod measure;
mod plain;
mod process;
mod records;
mod relay;
mod report;
mod scrape;
mod sdk;
mod statistics;
mod systems;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::systems::{Name, beatkeeper, etcd, redis, zookeeper};
use crate::words::Tell;

#[derive(Parser)]
#[command(version, about = "Measures Beatkeeper beside its peers")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Run all scenarios once against one system.
    Measure(measure::Plan),
    /// Run once what an operator costs, at one size.
    Cost(cost::Plan),
    /// Measure what the agent and the SDK cost.
    Clients(clients::Plan),
    /// Measure how long plain Kubernetes publishes what is dead, on a node of `beatkeeper-node exec`.
    Plain(plain::Plan),
    /// Make tables and plots of the results.
    Report(report::Plan),
    /// Note the machine and the versions beside the results.
    Context {
        /// The folder of the results.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// How large the runs are.
        #[arg(long)]
        mode: String,
    },
    /// Be the loader of a driver.
    #[command(hide = true)]
    Load(Role),
    /// Be the watcher of a driver.
    #[command(hide = true)]
    Watch(Role),
    /// Be the process of a service that uses the SDK.
    #[command(hide = true)]
    Sdk(sdk::Plan),
}

/// What the loader and the watcher need to know.
#[derive(Args)]
struct Role {
    #[arg(long, value_enum)]
    system: Name,
    #[arg(long)]
    address: String,
    #[arg(long)]
    ttl: u64,
    #[arg(long)]
    interval: u64,
    #[arg(long)]
    services: u32,
}

/// Code that starts processes is polled on `main`'s own thread, because the kernel ties the lives of the processes
/// to this thread.
#[tokio::main]
async fn main() -> ExitCode {
    let result = match Arguments::parse().action {
        Action::Measure(plan) => measure::measure(plan).await,
        Action::Cost(plan) => cost::cost(plan).await,
        Action::Clients(plan) => clients::measure(plan).await,
        Action::Plain(plan) => plain::measure(plan).await,
        Action::Sdk(plan) => sdk::beat(plan).await,
        Action::Report(plan) => report::write(&plan),
        Action::Context { out, mode } => context::note(&out, &mode),
        Action::Load(role) => load(role).await,
        Action::Watch(role) => systems::watch(role.system, &role.address, Tell::to_stdout()).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("beatkeeper-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn load(Role { system, address, ttl, interval, services }: Role) -> Result<()> {
    let (ttl, interval) = (Duration::from_secs(ttl), Duration::from_secs(interval));
    let tell = Tell::to_stdout();
    match system {
        Name::Beatkeeper => {
            let leases = beatkeeper::Leases::connect(&address, ttl, services).await?;
            load::run(leases, interval, tell).await
        }
        Name::Etcd => load::run(etcd::Leases::connect(&address, ttl).await?, interval, tell).await,
        Name::Redis => load::run(redis::Keys::connect(&address, ttl).await?, interval, tell).await,
        Name::Zookeeper => load::run(zookeeper::Sessions::new(&address, ttl), interval, tell).await,
    }
}

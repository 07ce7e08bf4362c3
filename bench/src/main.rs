//! Measures the lag and the cost of Beatkeeper, compared with the systems that are used instead.
//!
//! `measure` is the driver. It starts a system, and the loader and the watcher as processes of their own. These
//! processes run this same program.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod clients;
mod clock;
mod context;
mod cost;
mod driver;
mod ledger;
mod load;
mod measure;
mod messages;
mod meter;
mod metrics;
mod plain;
mod plan;
mod process;
mod relay;
mod report;
mod results;
mod sdk;
mod system;
mod systems;
mod workers;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::messages::Events;
use crate::system::Setup;

#[derive(Parser)]
#[command(version, about = "Measures Beatkeeper beside its peers")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Run all scenarios once against one system.
    Measure(measure::Measure),
    /// Run once what an operator costs, at one size.
    Cost(cost::Cost),
    /// Measure what the agent and the SDK cost.
    Clients(plan::Plan),
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
    Sdk { instances: u32 },
}

/// What the loader and the watcher need to know.
#[derive(Args)]
struct Role {
    /// How the system was set up, as JSON.
    #[arg(value_parser = |json: &str| serde_json::from_str::<Setup>(json))]
    setup: Setup,
    /// The address of the system for clients.
    address: String,
}

/// Code that starts processes is polled on `main`'s own thread, because the kernel ties the lives of the processes
/// to this thread.
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let events = Events::to_stdout;
    match Arguments::parse().action {
        Action::Measure(what) => measure::measure(what).await,
        Action::Cost(what) => cost::measure(what).await,
        Action::Clients(plan) => clients::measure(plan).await,
        Action::Plain(plan) => plain::measure(plan).await,
        Action::Sdk { instances } => sdk::beat(instances).await,
        Action::Report(plan) => report::write(&plan),
        Action::Context { out, mode } => context::note(&out, &mode),
        Action::Load(Role { setup, address }) => systems::load(&setup, &address, events()).await,
        Action::Watch(Role { setup, address }) => systems::watch(&setup, &address, events()).await,
    }
}

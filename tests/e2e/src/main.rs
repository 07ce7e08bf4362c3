//! `beatkeeper-e2e` plays the story of an installation with real Pods on the cluster that KUBECONFIG names.
//!
//! The program installs its own release from the chart of this repository. It removes the release and its namespace
//! at the end, also if it fails or is interrupted. Some steps need a node of our own (`beatkeeper-node exec`). On
//! other clusters, the program omits them and says so.

mod caller;
mod chapters;
mod cluster;
mod command;
mod host;
mod plugin;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::chapters::Chapter;
use crate::cluster::{Cluster, Images};

/// Play the end-to-end story of Beatkeeper on the cluster that KUBECONFIG names.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Image of Beatkeeper, as `repository:tag`.
    #[arg(long, env = "BEATKEEPER_IMAGE")]
    image: String,
    /// Image of the app that the story publishes: tests/node/images/greeter.
    #[arg(
        long,
        env = "BEATKEEPER_GREETER_IMAGE",
        default_value = "localhost/beatkeeper/greeter:test"
    )]
    greeter_image: String,
    /// The program helm.
    #[arg(long, env = "HELM", default_value = "helm")]
    helm: PathBuf,
    /// Program of Beatkeeper on this machine, for instances outside the cluster.
    #[arg(long, env = "BEATKEEPER")]
    beatkeeper: Option<PathBuf>,
    /// The app on this machine, for the same.
    #[arg(long, env = "BEATKEEPER_GREETER")]
    greeter: Option<PathBuf>,
    /// The kubectl plugin, kubectl-beatkeeper.
    #[arg(long, env = "BEATKEEPER_PLUGIN")]
    plugin: Option<PathBuf>,
    /// Play only these chapters, and those that they build on.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Chapter>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("beatkeeper-e2e: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let host = host::Host::find(arguments.beatkeeper, arguments.greeter);
    let images = Images { beatkeeper: arguments.image, greeter: arguments.greeter_image };
    let plugin = arguments.plugin.map(plugin::Plugin::at).transpose()?;
    let cluster = Cluster::prepare(images, arguments.helm, host, plugin).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let played = tokio::select! {
        played = play(&cluster, &arguments.only) => played,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    if played.is_err() {
        cluster.show_what_is_there().await;
    }
    let cleared = cluster.clear().await;
    played.and(cleared)
}

async fn play(cluster: &Cluster, only: &[Chapter]) -> Result<()> {
    let began = Instant::now();
    for chapter in Chapter::value_variants().iter().copied() {
        if !only.is_empty() && !only.contains(&chapter) && !chapter.is_built_on() {
            continue;
        }
        println!("\n== {}. {}", chapter as usize, chapter.title());
        let began = Instant::now();
        chapter.play(cluster).await?;
        println!("== passed in {:.1} s", began.elapsed().as_secs_f64());
    }
    let what = if only.is_empty() { "the whole story" } else { "the chosen chapters" };
    let left_out = match chapters::count_left_out() {
        0 => String::new(),
        count => format!(", but for {count} NOT SHOWN"),
    };
    println!("\n{what} passed in {:.0} s{left_out}", began.elapsed().as_secs_f64());
    Ok(())
}

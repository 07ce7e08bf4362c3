//! `beatkeeper-node`: a real single node on the command line.
//!
//! Everything runs in network, mount, IPC and PID namespaces of its own. When the first process in the namespaces
//! ends, the kernel ends all others, and the interfaces, nftables rules and mounts end with the namespaces. Cgroups
//! and the data folder remain. A process outside the namespaces waits for our end, however we end, and removes
//! them.

mod binaries;
mod inside;
mod outside;
mod preflight;
mod settings;
mod sweep;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// A real Kubernetes node with its control plane, for tests and trials. Needs root.
///
/// Its binaries are built from source with Go on first use, which takes minutes. It leaves nothing behind, not even
/// when it is killed.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Say what this machine lacks, and exit with 77 when that is anything.
    Preflight,
    /// Build binaries and images where they are missing.
    Build,
    /// Print the folder that has the images, and the app in them as a program.
    Images,
    /// Start a node, print how to reach it, and run it until Ctrl-C.
    Up(Choices),
    /// Run a command in the network of a node of its own, take everything down, and pass its exit code on.
    Exec {
        #[command(flatten)]
        choices: Choices,
        /// The command and its arguments.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// The first process of the namespaces.
    #[command(hide = true)]
    Init {
        folder: PathBuf,
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Brings the node up in there.
    #[command(hide = true)]
    Inside {
        folder: PathBuf,
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Removes what the namespaces leave, once standard input ends.
    #[command(hide = true)]
    Sweep { folder: PathBuf },
}

#[derive(Args)]
struct Choices {
    /// An image archive (docker-archive or oci-archive) to load into the node; may be repeated.
    #[arg(long = "image", value_name = "FILE")]
    images: Vec<PathBuf>,
}

/// This runs on `main`'s own thread, because the kernel ties the lives of the started processes to this thread.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse().action).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("beatkeeper-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(action: Action) -> Result<ExitCode> {
    match action {
        Action::Preflight => Ok(preflight::run()),
        Action::Build => binaries::build().map(|_| ExitCode::SUCCESS),
        Action::Images => {
            println!("{}", binaries::folder()?.join("images").display());
            Ok(ExitCode::SUCCESS)
        }
        Action::Up(choices) => outside::run(&choices.images, &[]).await,
        Action::Exec { choices, command } => outside::run(&choices.images, &command).await,
        Action::Init { folder, command } => inside::init(&folder, &command),
        Action::Inside { folder, command } => inside::run(&folder, &command).await,
        Action::Sweep { folder } => sweep::run(&folder).map(|()| ExitCode::SUCCESS),
    }
}

//! The command `kubectl-beatkeeper`, which kubectl runs as `kubectl beatkeeper`.

use std::process::ExitCode;

use clap::Parser;
use kubectl_beatkeeper::cli::Cli;

fn main() -> ExitCode {
    kubectl_beatkeeper::run(Cli::parse())
}

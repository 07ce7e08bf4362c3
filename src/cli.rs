//! The subcommands.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use beatkeeper::agent;
use clap::{Parser, Subcommand};

/// Publishes what beats as the endpoints of a Kubernetes Service, and prunes what stops.
#[derive(Debug, Parser)]
#[command(name = "beatkeeper", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep one instance beating until stopped, then deregister it.
    Agent(agent::Args),
    /// Print the CustomResourceDefinition, for kubectl apply --server-side -f -.
    Crd,
}

/// Runs a subcommand to its end.
pub fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Agent(args) => agent::run(args),
        Command::Crd => print_crd().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        // Not eprintln!, which panics when nobody reads any more.
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

fn print_crd() -> anyhow::Result<()> {
    let yaml = serde_saphyr::to_string(&beatkeeper_api::crd()).context("cannot render the CRD")?;
    std::io::stdout().write_all(yaml.as_bytes()).context("cannot print the CRD")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_printed_crd_reads_back_as_it_was() {
        let crd = beatkeeper_api::crd();
        let yaml = serde_saphyr::to_string(&crd).expect("YAML");
        let back: CustomResourceDefinition = serde_saphyr::from_str(&yaml).expect("a CRD");
        assert_eq!(back, crd);
    }
}

//! The subcommands.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use beatkeeper::{agent, controller, gateway, kube_client::Source, metrics, output};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{log_level, logging};

/// Publishes what beats as the endpoints of a Kubernetes Service, and prunes what stops.
#[derive(Debug, Parser)]
#[command(name = "beatkeeper", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Beat for processes and targets that do not do it themselves.
    Agent(agent::Command),
    /// Run the operator: publish the instances that beat, and prune those that stopped.
    Controller(Box<controller::Args>),
    /// Print the CustomResourceDefinition, for kubectl apply --server-side -f -.
    Crd {
        /// Print the reference of its fields instead, as Markdown.
        #[arg(long)]
        docs: bool,
    },
    /// Take beats over HTTP and carry them to the operator, so that they cost no write of a Lease.
    Gateway(Box<gateway::Args>),
    /// Change how much a running operator logs, without a restart.
    LogLevel(log_level::Args),
    /// Print the page that lists the agent's commands and settings, as Markdown.
    #[command(hide = true)]
    AgentReference,
    /// Print the page that lists the metrics of operator and agent, as Markdown.
    #[command(hide = true)]
    Metrics,
}

/// Runs a subcommand to its end.
pub fn run(cli: Cli) -> ExitCode {
    output::tell_panics();
    let result = match cli.command {
        Command::Agent(command) => {
            logging::to_stderr(AGENT_LOGS, controller::LogFormat::Text);
            agent::run(command)
        }
        Command::Controller(args) => operate(*args),
        Command::Crd { docs } => print_crd(docs).map(|()| ExitCode::SUCCESS),
        Command::Gateway(args) => carry(*args),
        Command::LogLevel(args) => log_level::change(&args).map(|()| ExitCode::SUCCESS),
        Command::AgentReference => print(&agent::reference_page()).map(|()| ExitCode::SUCCESS),
        Command::Metrics => print(&metrics::page::page()).map(|()| ExitCode::SUCCESS),
    };
    let code = result.unwrap_or_else(|error| {
        // Not eprintln!, which waits for a reader, and panics when there is none any more.
        output::stderr().say_error("error: ", &format!("{error:#}"));
        ExitCode::FAILURE
    });
    output::flush(LAST_WORDS_WITHIN);
    code
}

/// At its end the program waits at most this long for its output to be read.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);

/// Runs the operator until SIGTERM or SIGINT, and ends what is under way.
#[tokio::main]
async fn operate(args: controller::Args) -> anyhow::Result<ExitCode> {
    let filter = logging::to_stderr("info", args.log_format);
    let log_level = log_level::Signals::listen().context("cannot listen for SIGUSR1, SIGUSR2")?;
    tokio::spawn(log_level.follow(filter));
    let settings = controller::Settings::try_from(args)?;
    let source = Source::infer().context("cannot find out how to reach Kubernetes")?;
    let stop = stop_at_signals("stopping: what is under way is ended, what is published stays")?;
    controller::run(source, settings, stop).await?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a gateway until SIGTERM or SIGINT, and lets its instances go to others.
fn carry(args: gateway::Args) -> anyhow::Result<ExitCode> {
    let filter = logging::to_stderr("info", args.log_format);
    let running = async {
        let log_level =
            log_level::Signals::listen().context("cannot listen for SIGUSR1, SIGUSR2")?;
        tokio::spawn(log_level.follow(filter));
        let source = Source::infer().context("cannot find out how to reach Kubernetes")?;
        let stop = stop_at_signals("stopping: instances are told to connect elsewhere")?;
        gateway::run(source, args, stop).await?;
        Ok(ExitCode::SUCCESS)
    };
    beatkeeper_gateway::run::on_this_thread(running).context("cannot begin")?
}

/// A token that is cancelled by SIGTERM or SIGINT.
fn stop_at_signals(doing: &'static str) -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("{doing}");
        on_signal.cancel();
    });
    Ok(stop)
}

/// An agent prints lines of its own about an instance. These logs are about the way to the API server.
const AGENT_LOGS: &str = "off,beatkeeper_client::transport=info";

fn print_crd(docs: bool) -> anyhow::Result<()> {
    let text = match docs {
        true => {
            beatkeeper_api::reference_markdown() + &beatkeeper_core::vocabulary::reason::reference()
        }
        false => beatkeeper_api::crd_yaml(),
    };
    print(&text)
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("cannot print")
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
        let yaml = beatkeeper_api::crd_yaml();
        let back: CustomResourceDefinition = serde_saphyr::from_str(&yaml).expect("a CRD");
        assert_eq!(back, crd);
    }
}

//! The command line.

use clap::{CommandFactory, Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::{
    commands::{
        adopt, check, complete, completion, console, console_server, cordon, diff, drain, get,
        lint, loglevel, man, support_bundle, top, uncordon, version, why,
    },
    error::{Error, Outcome},
    flags::ConnectionFlags,
    output::Output,
};

/// Shows what Beatkeeper publishes, and why.
///
/// All commands only read, except for cordon, uncordon, drain, adopt and loglevel.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-beatkeeper",
    bin_name = "kubectl beatkeeper",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 all is well, 1 something was found or failed, 2 the command line makes no sense."
)]
pub struct Cli {
    #[command(flatten)]
    connection: ConnectionFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show registrations with their instances, and what is published of them.
    Get(get::GetArgs),
    /// Explain step by step why an instance is in its state, and what to do. Exits with 1 unless all is well.
    Why(why::WhyArgs),
    /// Show what would change if a registration published, for instance at the end of its dry run. Exits with 1 if
    /// something would.
    Diff(diff::DiffArgs),
    /// Show how much registrations beat, and which of their instances are late.
    Top(top::TopArgs),
    /// Serve a page on this computer that shows registrations live.
    Console(console::ConsoleArgs),
    /// Serve the same page in a cluster, to readers that bring a token each. The Helm chart starts it.
    ConsoleServer(console_server::ConsoleServerArgs),
    /// Remove an instance from what is published, although it beats.
    Cordon(cordon::CordonArgs),
    /// Lift the cordon of an instance, also if its Lease is gone.
    Uncordon(uncordon::UncordonArgs),
    /// Give an instance no new connections, and let it finish the existing ones.
    Drain(drain::DrainArgs),
    /// Have the operator rehearse and then make the adoption of a Service that has a selector or hand-written Endpoints.
    Adopt(adopt::AdoptArgs),
    /// Change how much a running operator logs, without a restart.
    #[command(name = "loglevel")]
    LogLevel(loglevel::LogLevelArgs),
    /// Write an archive with what is needed to find the cause of a problem from afar. It holds no secrets.
    SupportBundle(support_bundle::SupportBundleArgs),
    /// Check whether an installation works, or whether a cluster is ready for one.
    Check(check::CheckArgs),
    /// Check registrations in files, without a cluster.
    Lint(lint::LintArgs),
    /// Print a script that completes commands, for a shell or for kubectl.
    Completion(completion::CompletionArgs),
    /// Print a manual page.
    Man(man::ManArgs),
    /// Print the version of the plugin.
    Version(version::VersionArgs),
    /// Print candidates for the last word, as kubectl asks for them.
    #[command(name = "__complete", hide = true)]
    Complete(complete::CompleteArgs),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// [`Error`], which says what failed.
    pub fn run(self, output: &Output) -> Result<Outcome, Error> {
        let Self { connection, command } = self;
        match command {
            Command::Get(args) => wait(get::run(&args, &connection, output)),
            Command::Why(args) => wait(why::run(&args, &connection, output)),
            Command::Diff(args) => wait(diff::run(&args, &connection, output)),
            Command::Top(args) => wait(top::run(&args, &connection, output)),
            Command::Console(args) => wait(console::run(&args, &connection, output)),
            Command::ConsoleServer(args) => wait(console_server::run(&args, output)),
            Command::Cordon(args) => wait(cordon::run(&args, &connection, output)),
            Command::Uncordon(args) => wait(uncordon::run(&args, &connection, output)),
            Command::Drain(args) => wait(drain::run(&args, &connection, output)),
            Command::Adopt(args) => wait(adopt::run(&args, &connection, output)),
            Command::LogLevel(args) => wait(loglevel::run(&args, &connection, output)),
            Command::SupportBundle(args) => wait(support_bundle::run(&args, &connection, output)),
            Command::Check(args) => wait(check::run(&args, &connection, output)),
            Command::Lint(args) => lint::run(&args, &connection, output),
            Command::Completion(args) => completion::run(&args, Self::command(), output),
            Command::Man(args) => man::run(&args, Self::command(), output),
            Command::Version(args) => version::run(&args, output),
            Command::Complete(args) => wait(complete::run(&args, &Self::command(), output)),
        }
    }
}

/// Runs what waits for the API server.
fn wait(task: impl Future<Output = Result<Outcome, Error>>) -> Result<Outcome, Error> {
    Runtime::new().map_err(Error::Start)?.block_on(task)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

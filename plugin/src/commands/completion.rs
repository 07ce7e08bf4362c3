//! `completion`: prints a script with which a shell completes the command `kubectl-beatkeeper`.

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;

use crate::{
    error::{Error, Outcome},
    output::Output,
};

/// The arguments of `completion`.
#[derive(Debug, Clone, Args)]
pub struct CompletionArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: KnownShell,
}

/// A shell for which there is a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KnownShell {
    /// bash: source <(kubectl beatkeeper completion bash)
    Bash,
    /// zsh: source <(kubectl beatkeeper completion zsh)
    Zsh,
    /// fish: kubectl beatkeeper completion fish | source
    Fish,
    /// kubectl itself: put the script on the PATH, as an executable file named kubectl_complete-beatkeeper
    Kubectl,
}

/// The script that kubectl runs to complete `kubectl beatkeeper`.
pub const KUBECTL_SCRIPT: &str = include_str!("../../kubectl_complete-beatkeeper");

/// Prints the script.
///
/// # Errors
/// If it cannot be printed.
pub fn run(args: &CompletionArgs, mut command: Command, output: &Output) -> Result<Outcome, Error> {
    let shell = match args.shell {
        KnownShell::Bash => Shell::Bash,
        KnownShell::Zsh => Shell::Zsh,
        KnownShell::Fish => Shell::Fish,
        KnownShell::Kubectl => {
            output.text(KUBECTL_SCRIPT)?;
            return Ok(Outcome::Well);
        }
    };
    let mut script = Vec::new();
    // The scripts are for the file's own name: kubectl completes `kubectl beatkeeper` by its own script.
    command.set_bin_name(NAME);
    clap_complete::generate(shell, &mut command, NAME, &mut script);
    output.text(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Well)
}

/// The name of the program's file.
const NAME: &str = "kubectl-beatkeeper";

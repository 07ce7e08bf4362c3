//! `man`: prints the manual pages.

use std::{fs, path::PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;

use crate::{
    error::{Error, Outcome},
    output::Output,
};

/// The arguments of `man`.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// The command whose page is printed. Default: the page of the plugin.
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Option<String>,
    /// Write the pages of all commands into this folder.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Prints a page, or writes all pages.
///
/// # Errors
/// There is no such command, or a page cannot be written.
pub fn run(args: &ManArgs, mut command: Command, output: &Output) -> Result<Outcome, Error> {
    command.build();
    if let Some(folder) = &args.dir {
        for page in pages(&command) {
            let name = format!("{}.1", name(&page));
            fs::write(folder.join(name), rendered(page)?)?;
        }
        return Ok(Outcome::Well);
    }
    let page = match &args.command {
        None => command,
        Some(name) => {
            let found = command.get_subcommands().find(|it| it.get_name() == name);
            let unknown = || Error::Usage(format!("there is no command {name}; see --help"));
            found.cloned().ok_or_else(unknown)?
        }
    };
    output.text(&String::from_utf8_lossy(&rendered(page)?))?;
    Ok(Outcome::Well)
}

/// The pages of the plugin and of its commands, except for hidden ones.
fn pages(command: &Command) -> Vec<Command> {
    let commands = command.get_subcommands().filter(|it| !it.is_hide_set());
    std::iter::once(command).chain(commands).cloned().collect()
}

/// The name of a page, such as kubectl-beatkeeper-get.
fn name(page: &Command) -> &str {
    page.get_display_name().unwrap_or(page.get_name())
}

fn rendered(command: Command) -> Result<Vec<u8>, Error> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(page)
}

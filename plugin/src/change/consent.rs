//! Asks a person before a change that may be a mistake.

use std::io::{self, BufRead, IsTerminal, Write};

use super::obstacle::Obstacle;
use crate::{error::Error, flags::DryRun};

/// What a person has said on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// `--yes`.
    pub yes: bool,
    /// `--dry-run`, which changes nothing.
    pub dry_run: DryRun,
}

/// Asks whether to go on. Without a terminal nobody can be asked, and only `--yes` is consent.
///
/// # Errors
/// [`Obstacle::TooFew`] or [`Obstacle::Declined`], without consent.
pub fn ask(given: Given) -> Result<(), Error> {
    if given.yes || given.dry_run != DryRun::None {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Obstacle::TooFew.into());
    }
    write!(io::stderr(), "Go on? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match agrees(&answer) {
        true => Ok(()),
        false => Err(Obstacle::Declined.into()),
    }
}

fn agrees(answer: &str) -> bool {
    ["y", "yes"].contains(&answer.trim().to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_consent() {
        for (answer, consent) in [
            ("y\n", true),
            ("YES", true),
            ("\n", false),
            ("no", false),
            ("yeah", false),
            ("", false),
        ] {
            assert_eq!(agrees(answer), consent, "{answer:?}");
        }
    }
}

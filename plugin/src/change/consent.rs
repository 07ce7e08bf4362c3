//! Asks a person before a change that may be a mistake.

use std::io::{self, BufRead, IsTerminal, Write};

use super::obstacle::Obstacle;
use crate::{
    error::Error,
    flags::{DryRun, RemovalFlags},
    model::{instance::Instance, registration::RegistrationView, removal::Removal},
    output::Output,
};

/// Says what follows from the removal of an instance, and asks whether to go on if too few would be left. Without a
/// terminal there is no person to ask, and only `--yes` is consent.
///
/// # Errors
/// [`Obstacle::TooFew`] or [`Obstacle::Declined`], without consent.
pub fn tell_and_ask(
    view: &RegistrationView,
    instance: &Instance,
    flags: &RemovalFlags,
    output: &Output,
) -> Result<(), Error> {
    let removal = Removal::of(view, instance);
    output.text(&removal.told().iter().map(|line| format!("{line}\n")).collect::<String>())?;
    let is_agreed = flags.yes || flags.change.dry_run != DryRun::None;
    if is_agreed || !removal.leaves_too_few() {
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

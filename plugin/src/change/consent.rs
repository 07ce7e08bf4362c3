//! Asks a person before a change that may be a mistake.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    thread,
};

use tokio::sync::oneshot;

use super::obstacle::Obstacle;
use crate::{
    error::Error,
    flags::{DryRun, RemovalFlags},
    model::{instance::Instance, registration::RegistrationView, removal::Removal},
    output::Output,
    signals::End,
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
    if !has_person() {
        return Err(Obstacle::TooFew.into());
    }
    match agrees(&answer()?) {
        true => Ok(()),
        false => Err(Obstacle::Declined.into()),
    }
}

/// Asks whether to go on, as long as no signal ends the command. Without a terminal there is no person to ask.
///
/// # Errors
/// [`Obstacle::NotAgreed`], [`Obstacle::Declined`] or [`Obstacle::Interrupted`], without consent.
pub async fn ask(end: &mut End) -> Result<(), Error> {
    if !has_person() {
        return Err(Obstacle::NotAgreed.into());
    }
    let (given, answered) = oneshot::channel();
    // A thread that reads cannot be stopped. The process ends without waiting for this one.
    thread::spawn(move || given.send(answer()));
    let answer = tokio::select! {
        () = end.asked() => return Err(Obstacle::Interrupted.into()),
        answer = answered => answer.unwrap_or_else(|_| Ok(String::new()))?,
    };
    match agrees(&answer) {
        true => Ok(()),
        false => Err(Obstacle::Declined.into()),
    }
}

fn has_person() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn answer() -> io::Result<String> {
    write!(io::stderr(), "Go on? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer)
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

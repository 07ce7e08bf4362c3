//! The kubectl plugin of Beatkeeper.
//!
//! Each command gathers, models and renders. [`gather`] reads objects from the API server, page by page, and keeps only
//! what is used of them. [`model`] turns them into plain values: a registration with all its instances. [`render`] turns
//! these values into text. The last two have no I/O and no clock.
//!
//! Commands that change something first say what follows, in the words of [`model`], and write through [`change`].
//!
//! The support bundle ([`bundle`]) keeps what a helper needs of the same objects.
//!
//! A command is a file or a folder in `commands`. It takes a [`session::Session`] and writes to an [`output::Output`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bundle;
pub mod change;
pub mod check;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod console;
pub mod error;
pub mod flags;
pub mod gather;
mod kubectl;
pub mod leader;
pub mod lint;
pub mod model;
pub mod output;
pub mod render;
pub mod session;
pub mod signals;
pub mod sizes;
pub mod target;
pub mod times;
pub mod view;

use std::process::ExitCode;

use cli::Cli;
use output::Output;

/// Runs a command to its end. Returns 0 if all is well, 1 if something was found or failed, and 2 if the command line
/// makes no sense.
pub fn run(cli: Cli) -> ExitCode {
    let output = Output::standard();
    match cli.run(&output) {
        Ok(outcome) => outcome.code(),
        Err(error) => {
            output.complain(&error);
            error.code()
        }
    }
}

//! Writes what a command prints.

use std::{
    env,
    io::{self, ErrorKind, IsTerminal, Write},
};

use crate::{
    error::Error,
    render::text::{Line, Paint},
};

/// Where a command prints, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// Whether standard output may have colours.
    pub paint: Paint,
    /// Whether standard output is a terminal.
    pub terminal: bool,
    /// How wide a line should be at most, in characters.
    pub width: usize,
}

/// How wide lines are where no terminal has a width.
const WIDTH: usize = 100;

impl Output {
    /// Standard output. It has colours only on a terminal, and not if NO_COLOR is set.
    pub fn standard() -> Self {
        let terminal = io::stdout().is_terminal();
        let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|term| term == "dumb");
        let paint = if terminal && !plain { Paint::Colours } else { Paint::Plain };
        let width = if terminal { terminal_width() } else { None };
        Self { paint, terminal, width: width.unwrap_or(WIDTH) }
    }

    /// Prints lines.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn lines<'a>(&self, lines: impl IntoIterator<Item = &'a Line>) -> Result<(), Error> {
        let mut text = String::new();
        for line in lines {
            line.write(&mut text, self.paint);
            text.push('\n');
        }
        self.text(&text)
    }

    /// Prints text as it is.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn text(&self, text: &str) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // As with `| head`: the reader has what it wants.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            result => Ok(result?),
        }
    }

    /// Prints a document as JSON or YAML.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn document(&self, format: Document, value: &impl serde::Serialize) -> Result<(), Error> {
        let text = match format {
            Document::Json => serde_json::to_string_pretty(value).map_err(io::Error::other)? + "\n",
            Document::Yaml => serde_saphyr::to_string(value).map_err(io::Error::other)?,
        };
        self.text(&text)
    }

    /// Prints an error on standard error.
    pub fn complain(&self, error: &Error) {
        // There is no place to report that this fails.
        let _ = writeln!(io::stderr(), "error: {error}");
    }

    /// Prints a remark on standard error, where it does not disturb a program that reads the output.
    pub fn remark(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// The width of the terminal, but at least 40.
fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col).max(40)).filter(|_| size.ws_col > 0)
}

/// A form of the output of what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// What was found, in short.
    Short,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

impl Form {
    /// The form of the document, if it is one for programs.
    pub fn document(self) -> Option<Document> {
        match self {
            Self::Short => None,
            Self::Json => Some(Document::Json),
            Self::Yaml => Some(Document::Yaml),
        }
    }
}

/// A form of output for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Document {
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

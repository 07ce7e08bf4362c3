//! The output of the demo: chapters, commands as a user would type them, their output, and measurements.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};

use crate::table::Table;

/// The maximum width of text in columns, so that it reads well in any terminal.
const WIDTH: usize = 88;

/// Writes to stdout, in colour if stdout is a terminal and the user has not switched colours off.
///
/// Every method fails when stdout was closed, which ends the demo.
pub struct Output {
    colour: bool,
    chapter: u32,
    last: Cell<Block>,
}

/// The kinds of text. No blank line separates a command from its result, or texts of the same kind from each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Heading,
    Text,
    Command,
    Result,
    Seen,
}

/// The ways to highlight text.
#[derive(Clone, Copy)]
enum Ink {
    Bold,
    Dim,
    Green,
}

impl Output {
    /// Makes the output for this process's stdout.
    pub fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let capable = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        Self {
            colour: wanted && capable && io::stdout().is_terminal(),
            chapter: 0,
            last: Cell::new(Block::Result),
        }
    }

    /// Begins a numbered chapter.
    pub fn chapter(&mut self, title: &str) -> io::Result<()> {
        self.chapter += 1;
        self.heading(&format!("{}. {title}", self.chapter))
    }

    /// Prints a heading without a number.
    pub fn heading(&self, title: &str) -> io::Result<()> {
        self.begin(Block::Heading)?;
        self.line(&self.paint(Ink::Bold, title))
    }

    /// Prints a wrapped paragraph.
    pub fn say(&self, text: &str) -> io::Result<()> {
        self.begin(Block::Text)?;
        self.line(&wrapped(text, WIDTH))
    }

    /// Prints a command as a user would type it.
    pub fn command(&self, line: &str) -> io::Result<()> {
        self.begin(Block::Command)?;
        self.line(&format!("  {} {}", self.paint(Ink::Dim, "$"), self.paint(Ink::Bold, line)))
    }

    /// Prints what a command printed.
    pub fn result(&self, text: &str) -> io::Result<()> {
        self.begin(Block::Result)?;
        text.trim_end().lines().try_for_each(|line| self.line(format!("  {line}").trim_end()))
    }

    /// Prints an observation.
    pub fn seen(&self, text: &str) -> io::Result<()> {
        self.begin(Block::Seen)?;
        let text = wrapped(text, WIDTH - 4).replace('\n', "\n    ");
        self.line(&format!("  {} {text}", self.paint(Ink::Green, "✓")))
    }

    /// Prints a table with a highlighted header.
    pub fn table(&self, table: &Table) -> io::Result<()> {
        self.begin(Block::Result)?;
        for (number, line) in table.lines().iter().enumerate() {
            let line = if number == 0 { self.paint(Ink::Dim, line) } else { line.clone() };
            self.line(&format!("  {line}"))?;
        }
        Ok(())
    }

    fn begin(&self, block: Block) -> io::Result<()> {
        let together = match (self.last.replace(block), block) {
            (Block::Command, Block::Result) => true,
            (last, block) => last == block && block != Block::Text,
        };
        if together { Ok(()) } else { self.line("") }
    }

    fn paint(&self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Bold => 1,
            Ink::Dim => 2,
            Ink::Green => 32,
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        // Flush, so that a reader of a pipe sees each line at once.
        out.flush()
    }
}

fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let long = |line: &String| line.chars().count() + 1 + word.chars().count() > width;
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if !long(line) => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// Returns a command line that a shell parses into these words.
pub fn shell(words: &[&str]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,@%+".contains(c);
    let quoted = |word: &&str| {
        if !word.is_empty() && word.chars().all(plain) {
            (*word).to_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrapped("one two  three\nfour", 9), "one two\nthree\nfour");
        assert_eq!(wrapped("", 9), "");
    }

    #[test]
    fn a_shown_command_can_be_pasted_into_a_shell() {
        assert_eq!(shell(&["kubectl", "get", "sreg,svc"]), "kubectl get sreg,svc");
        assert_eq!(
            shell(&["annotate", "a=bad disk", "it's", ""]),
            r"annotate 'a=bad disk' 'it'\''s' ''"
        );
    }
}

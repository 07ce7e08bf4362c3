//! Lines of text with styles, which a terminal shows as colours. Nothing is told by a colour alone.

use std::borrow::Cow;

/// Whether lines are written with colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// As plain text.
    Plain,
    /// With the escape codes that terminals take for colours.
    Colours,
}

/// What a part of a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// Nothing in particular.
    #[default]
    Normal,
    /// A heading or a name.
    Strong,
    /// Something that seldom matters.
    Faint,
    /// All is well.
    Good,
    /// A person should look at it.
    Warning,
    /// A person has to act.
    Bad,
}

impl Style {
    /// The escape code that begins the style.
    const fn code(self) -> &'static str {
        match self {
            Self::Normal => "",
            Self::Strong => "\u{1b}[1m",
            Self::Faint => "\u{1b}[2m",
            Self::Good => "\u{1b}[32m",
            Self::Warning => "\u{1b}[33m",
            Self::Bad => "\u{1b}[31m",
        }
    }
}

/// A part of a line in one style.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The text, without control characters.
    pub text: Cow<'static, str>,
    /// Its style.
    pub style: Style,
}

/// A line of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// Its parts, from left to right.
    pub spans: Vec<Span>,
}

impl Line {
    /// An empty line.
    pub fn new() -> Self {
        Self::default()
    }

    /// A line with one text.
    pub fn of(text: impl Into<Cow<'static, str>>, style: Style) -> Self {
        Self::new().with(text, style)
    }

    /// The line with a further text in a style.
    #[must_use]
    pub fn with(mut self, text: impl Into<Cow<'static, str>>, style: Style) -> Self {
        let text = text.into();
        if !text.is_empty() {
            self.spans.push(Span { text, style });
        }
        self
    }

    /// The line with a further text in no style.
    #[must_use]
    pub fn and(self, text: impl Into<Cow<'static, str>>) -> Self {
        self.with(text, Style::Normal)
    }

    /// The line with a cell of a table: the text, filled with blanks up to `width` characters, and a gap.
    #[must_use]
    pub fn cell(self, text: &str, width: usize, style: Style) -> Self {
        if width == 0 {
            return self;
        }
        let blanks = width.saturating_sub(text.chars().count()) + GAP;
        self.with(text.to_owned(), style).and(" ".repeat(blanks))
    }

    /// Its width in characters.
    pub fn width(&self) -> usize {
        self.spans.iter().map(|span| span.text.chars().count()).sum()
    }

    /// Appends the line to a text. Blanks at its end are left out.
    pub fn write(&self, text: &mut String, paint: Paint) {
        let begin = text.len();
        for span in &self.spans {
            match (paint, span.style.code()) {
                (Paint::Colours, code) if !code.is_empty() => {
                    text.push_str(code);
                    text.push_str(&span.text);
                    text.push_str("\u{1b}[0m");
                }
                _ => text.push_str(&span.text),
            }
        }
        let length = text[begin..].trim_end_matches(' ').len();
        text.truncate(begin + length);
    }

    /// The line as plain text.
    pub fn plain(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, Paint::Plain);
        text
    }
}

/// The blanks between two columns.
const GAP: usize = 2;

/// Breaks a text into lines of at most `width` characters, at blanks. A longer word has a line of its own.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let line = lines.last_mut().expect("there is always a line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_written_only_where_they_are_asked_for() {
        let line = Line::of("vm-1", Style::Bad).and(" is late").and("  ");
        assert_eq!(line.plain(), "vm-1 is late");
        let mut text = String::new();
        line.write(&mut text, Paint::Colours);
        assert_eq!(text, "\u{1b}[31mvm-1\u{1b}[0m is late");
    }

    #[test]
    fn a_text_is_broken_at_blanks_and_a_long_word_stays_whole() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a verylongword b", 4), ["a", "verylongword", "b"]);
        assert_eq!(wrap("", 4), [""]);
    }
}

//! What the live view shows of a picture: which rows, and how they are drawn. It has no terminal.

use jiff::Timestamp;
use ratatui::{
    Frame,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    layout::Rect,
    style::{Color, Modifier, Style as TerminalStyle},
    text::{Line as TerminalLine, Span as TerminalSpan},
};

use super::scroll::Scroll;
use crate::{
    model::registration::Picture,
    render::{
        text::{Line, Paint, Span, Style},
        tree::{Look, Rows},
    },
};

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// To end the view.
    Quit,
    /// To draw it again.
    Redraw,
}

/// How the watches are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health<'a> {
    /// The first lists are under way.
    Reading,
    /// All changes arrive.
    Live,
    /// A watch fails.
    Failing(&'a str),
}

/// The page.
#[derive(Debug)]
pub struct Page {
    rows: Rows,
    scroll: Scroll,
    look: Look,
    paint: Paint,
    is_stale: bool,
}

impl Page {
    /// A page without rows.
    pub fn new(wide: bool, paint: Paint) -> Self {
        let look = Look { wide, ..Look::default() };
        Self { rows: Rows::default(), scroll: Scroll::default(), look, paint, is_stale: true }
    }

    /// Handles a key; `None` if it asks for nothing.
    pub fn key(&mut self, key: KeyEvent) -> Option<Action> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Some(Action::Quit),
            KeyCode::Char('q') | KeyCode::Esc => return Some(Action::Quit),
            KeyCode::Up | KeyCode::Char('k') => self.scroll.up(1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll.down(1),
            KeyCode::PageUp | KeyCode::Char('b') => self.scroll.page_up(),
            KeyCode::PageDown | KeyCode::Char(' ') => self.scroll.page_down(),
            KeyCode::Home | KeyCode::Char('g') => self.scroll.top(),
            KeyCode::End | KeyCode::Char('G') => self.scroll.bottom(),
            KeyCode::Char('w') => {
                self.look.wide = !self.look.wide;
                self.is_stale = true;
            }
            KeyCode::Char('p') => {
                self.look.troubled = !self.look.troubled;
                self.is_stale = true;
            }
            _ => return None,
        }
        Some(Action::Redraw)
    }

    /// Notes that the picture has changed.
    pub fn make_stale(&mut self) {
        self.is_stale = true;
    }

    /// Draws the rows that are seen, and a line at the foot.
    pub fn draw(
        &mut self,
        frame: &mut Frame<'_>,
        picture: &Picture,
        health: Health<'_>,
        now: Timestamp,
    ) {
        let area = frame.area();
        let width = usize::from(area.width);
        if self.is_stale || self.look.width != width {
            self.look.width = width;
            self.rows = Rows::of(picture, self.look);
            self.scroll.set_length(self.rows.rows.len());
            self.is_stale = false;
        }
        self.scroll.set_height(usize::from(area.height.saturating_sub(1)));
        let seen = self.rows.rows.iter().skip(self.scroll.first()).take(self.scroll.height());
        for (row, y) in seen.zip(area.y..) {
            let line = self.rows.draw(row, picture, now);
            put(frame, line, Rect { y, height: 1, ..area }, self.paint);
        }
        if let Some(y) = area.height.checked_sub(1).map(|last| area.y + last) {
            put(frame, self.foot(health), Rect { y, height: 1, ..area }, self.paint);
        }
    }

    fn foot(&self, health: Health<'_>) -> Line {
        let state = match health {
            Health::Failing(what) => {
                Line::of(format!("! cannot watch {what}; trying again"), Style::Bad)
            }
            Health::Reading => Line::of("reading …", Style::Warning),
            Health::Live => Line::of("live", Style::Good),
        };
        let filter = if self.look.troubled { "p all" } else { "p only problems" };
        let keys = format!("  q quit, ↑ ↓ PgUp PgDn g G scroll, {filter}, w wide");
        state.and(format!("  {}", self.scroll.place())).with(keys, Style::Faint)
    }
}

fn put(frame: &mut Frame<'_>, line: Line, place: Rect, paint: Paint) {
    let span = |span: Span| match paint {
        Paint::Plain => TerminalSpan::raw(span.text),
        Paint::Colours => TerminalSpan::styled(span.text, style(span.style)),
    };
    let line = TerminalLine::from(line.spans.into_iter().map(span).collect::<Vec<_>>());
    frame.render_widget(line, place);
}

fn style(style: Style) -> TerminalStyle {
    let plain = TerminalStyle::new();
    match style {
        Style::Normal => plain,
        Style::Strong => plain.add_modifier(Modifier::BOLD),
        Style::Faint => plain.add_modifier(Modifier::DIM),
        Style::Good => plain.fg(Color::Green),
        Style::Warning => plain.fg(Color::Yellow),
        Style::Bad => plain.fg(Color::Red),
    }
}

//! What the live view shows of a picture: the rows that fit, and a line at the foot. It has no terminal.

use jiff::Timestamp;
use ratatui::{
    Frame,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    layout::Rect,
    style::{Color, Modifier, Style as TerminalStyle},
    text::{Line as TerminalLine, Span as TerminalSpan},
};

use super::{body::Body, scroll::Scroll};
use crate::{
    model::registration::Picture,
    render::text::{Line, Paint, Span, Style},
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
pub struct Page<B> {
    body: B,
    scroll: Scroll,
    width: usize,
    paint: Paint,
    is_stale: bool,
}

impl<B: Body> Page<B> {
    /// A page with this body, which is not laid out yet.
    pub fn of(body: B, paint: Paint) -> Self {
        Self { body, scroll: Scroll::default(), width: 0, paint, is_stale: true }
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
            KeyCode::Char(key) if self.body.key(key) => self.is_stale = true,
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
        if self.is_stale || B::AGES || self.width != width {
            self.width = width;
            let length = self.body.lay_out(picture, width, now);
            self.scroll.set_length(length);
            self.is_stale = false;
        }
        let head = self.body.head().filter(|_| area.height > 1);
        let above = u16::from(head.is_some());
        if let Some(line) = head {
            put(frame, line, Rect { height: 1, ..area }, self.paint);
        }
        self.scroll.set_height(usize::from(area.height.saturating_sub(1 + above)));
        for (place, y) in self.scroll.seen().zip(area.y + above..) {
            let line = self.body.row(place, picture, now);
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
        let keys = format!("  q quit, ↑ ↓ PgUp PgDn g G scroll, {}", self.body.keys());
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

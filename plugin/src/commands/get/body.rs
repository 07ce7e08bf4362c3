//! What `get --watch` shows: the tree.

use jiff::Timestamp;

use crate::{
    model::registration::Picture,
    render::{
        text::Line,
        tree::{Look, Rows},
    },
    view::body::Body,
};

/// The tree of all registrations.
#[derive(Debug, Default)]
pub struct Tree {
    rows: Rows,
    look: Look,
}

impl Tree {
    /// A tree without rows.
    pub fn new(wide: bool) -> Self {
        Self { rows: Rows::default(), look: Look { wide, ..Look::default() } }
    }
}

impl Body for Tree {
    const AGES: bool = false;

    fn lay_out(&mut self, picture: &Picture, width: usize, _now: Timestamp) -> usize {
        self.look.width = width;
        self.rows = Rows::of(picture, self.look);
        self.rows.rows.len()
    }

    fn head(&self) -> Option<Line> {
        None
    }

    fn row(&self, place: usize, picture: &Picture, now: Timestamp) -> Line {
        self.rows.draw(&self.rows.rows[place], picture, now)
    }

    fn key(&mut self, key: char) -> bool {
        match key {
            'w' => self.look.wide = !self.look.wide,
            'p' => self.look.troubled = !self.look.troubled,
            _ => return false,
        }
        true
    }

    fn keys(&self) -> &'static str {
        if self.look.troubled { "p all, w wide" } else { "p only problems, w wide" }
    }
}

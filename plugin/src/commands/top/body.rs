//! What `top --watch` shows: the table, sorted anew while it changes.

use jiff::Timestamp;

use crate::{
    model::{
        kind::Kind,
        load::{Load, SortBy, sort},
        registration::Picture,
    },
    render::{load::table, text::Line, tree::unread},
    view::body::Body,
};

/// The table of all registrations.
#[derive(Debug)]
pub struct Table {
    sort_by: SortBy,
    sum: bool,
    namespaces: bool,
    heading: Option<Line>,
    lines: Vec<Line>,
}

impl Table {
    /// A table without lines. `namespaces` has it show the namespace of each registration.
    pub fn new(sort_by: SortBy, sum: bool, namespaces: bool) -> Self {
        Self { sort_by, sum, namespaces, heading: None, lines: Vec::new() }
    }

    /// The lines of a picture; of the table none, if the Leases cannot be read.
    pub fn lines(&self, picture: &Picture, width: usize, now: Timestamp) -> Vec<Line> {
        let mut lines = Vec::new();
        if picture.unread.iter().all(|unread| unread.what != Kind::Lease.as_str()) {
            let mut loads: Vec<Load> =
                picture.registrations.iter().map(|it| Load::of(it, now)).collect();
            sort(&mut loads, self.sort_by);
            let sum = self.sum.then(|| Load::sum(&loads));
            lines.extend(table(&loads, sum.as_ref(), self.namespaces));
        }
        lines.extend(unread(&picture.unread, width));
        lines
    }
}

impl Body for Table {
    const AGES: bool = true;

    fn lay_out(&mut self, picture: &Picture, width: usize, now: Timestamp) -> usize {
        let mut lines = self.lines(picture, width, now).into_iter();
        self.heading = lines.next();
        self.lines = lines.collect();
        self.lines.len()
    }

    fn head(&self) -> Option<Line> {
        self.heading.clone()
    }

    fn row(&self, place: usize, _picture: &Picture, _now: Timestamp) -> Line {
        self.lines[place].clone()
    }

    fn key(&mut self, key: char) -> bool {
        if key != 's' {
            return false;
        }
        self.sort_by = self.sort_by.next();
        true
    }

    fn keys(&self) -> &'static str {
        match self.sort_by {
            SortBy::Name => "s sort (by name)",
            SortBy::Beats => "s sort (by beats)",
            SortBy::Instances => "s sort (by instances)",
            SortBy::Overdue => "s sort (by overdue)",
            SortBy::Deadline => "s sort (by deadline)",
        }
    }
}

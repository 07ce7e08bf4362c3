//! What a command shows in the live view.

use jiff::Timestamp;

use crate::{model::registration::Picture, render::text::Line};

/// The rows of a live view.
pub trait Body {
    /// Whether the time alone changes which rows there are, or their order.
    const AGES: bool;

    /// Lays the rows out for a width. Returns how many there are.
    fn lay_out(&mut self, picture: &Picture, width: usize, now: Timestamp) -> usize;

    /// The row above the others, which is not scrolled.
    fn head(&self) -> Option<Line>;

    /// Draws a row of those that were laid out.
    fn row(&self, place: usize, picture: &Picture, now: Timestamp) -> Line;

    /// Handles a key. Returns whether the rows have to be laid out again.
    fn key(&mut self, key: char) -> bool;

    /// What its keys do, for the foot.
    fn keys(&self) -> &'static str;
}

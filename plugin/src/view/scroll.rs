//! Which rows of many are seen.

use std::ops::Range;

/// A window onto rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scroll {
    first: usize,
    length: usize,
    height: usize,
}

impl Scroll {
    /// The rows that are seen.
    pub fn seen(&self) -> Range<usize> {
        self.first..(self.first + self.height).min(self.length)
    }

    /// Sets how many rows there are.
    pub fn set_length(&mut self, length: usize) {
        self.length = length;
        self.bound();
    }

    /// Sets how many rows are seen at most.
    pub fn set_height(&mut self, height: usize) {
        self.height = height;
        self.bound();
    }

    /// Moves up.
    pub fn up(&mut self, rows: usize) {
        self.first = self.first.saturating_sub(rows);
    }

    /// Moves down.
    pub fn down(&mut self, rows: usize) {
        self.first = self.first.saturating_add(rows);
        self.bound();
    }

    /// Moves up by a page. One row stays in sight.
    pub fn page_up(&mut self) {
        self.up(self.height.saturating_sub(1).max(1));
    }

    /// Moves down by a page. One row stays in sight.
    pub fn page_down(&mut self) {
        self.down(self.height.saturating_sub(1).max(1));
    }

    /// Moves to the first row.
    pub fn top(&mut self) {
        self.first = 0;
    }

    /// Moves to the last row.
    pub fn bottom(&mut self) {
        self.down(self.length);
    }

    /// Where the window is, such as `rows 1–24 of 80`.
    pub fn place(&self) -> String {
        let last = (self.first + self.height).min(self.length);
        format!("rows {}–{last} of {}", (self.first + 1).min(last), self.length)
    }

    fn bound(&mut self) {
        self.first = self.first.min(self.length.saturating_sub(self.height));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_stays_on_the_rows() {
        let mut scroll = Scroll::default();
        scroll.set_length(80);
        scroll.set_height(24);
        scroll.up(1);
        assert_eq!((scroll.seen(), scroll.place().as_str()), (0..24, "rows 1–24 of 80"));
        scroll.page_down();
        assert_eq!(scroll.seen(), 23..47);
        scroll.bottom();
        assert_eq!((scroll.seen(), scroll.place().as_str()), (56..80, "rows 57–80 of 80"));
        scroll.down(5);
        assert_eq!(scroll.seen(), 56..80);
        scroll.set_length(10);
        assert_eq!((scroll.seen(), scroll.place().as_str()), (0..10, "rows 1–10 of 10"));
        scroll.set_length(0);
        assert_eq!(scroll.place(), "rows 0–0 of 0");
    }
}

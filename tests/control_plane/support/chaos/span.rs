//! Spans of time, and how much of one lies in others.

use std::time::{Duration, Instant};

/// A time from one moment to a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: Instant,
    pub to: Instant,
}

impl Span {
    pub fn length(self) -> Duration {
        self.to.saturating_duration_since(self.from)
    }

    /// The length of the part of this span that lies in another. It is zero if the spans do not
    /// meet.
    fn within(self, other: Span) -> Duration {
        self.to.min(other.to).saturating_duration_since(self.from.max(other.from))
    }
}

/// Merges spans into ordered spans that do not overlap.
pub fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| span.from);
    let mut apart: Vec<Span> = Vec::new();
    for span in spans {
        match apart.last_mut() {
            Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
            _ => apart.push(span),
        }
    }
    apart
}

/// How much of `stretch` lies in any of these spans.
pub fn overlap(spans: Vec<Span>, stretch: Span) -> Duration {
    merged(spans).into_iter().map(|span| span.within(stretch)).sum()
}

#[test]
fn time_in_two_spans_counts_once() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let spans = [(1, 4), (10, 12), (3, 5), (20, 30)];
    let spans = spans.map(|(from, to)| Span { from: at(from), to: at(to) }).to_vec();
    assert_eq!(overlap(spans, Span { from: at(2), to: at(11) }), Duration::from_secs(4));
}

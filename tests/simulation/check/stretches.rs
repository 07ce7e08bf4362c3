//! Stretches of time.

use beatkeeper_core::vocabulary::pace::Pace;

use super::millis;

/// Some stretches of time. The last one may still go on.
#[derive(Debug, Clone, Default)]
pub struct Stretches(Vec<(u64, Option<u64>)>);

impl Stretches {
    pub(super) fn note(&mut self, now: u64, goes_on: bool) {
        match self.0.last_mut() {
            Some((_, end @ None)) if !goes_on => *end = Some(now),
            Some((_, None)) => {}
            _ if goes_on => self.0.push((now, None)),
            _ => {}
        }
    }

    /// Returns the parts of the stretches that lie between two moments.
    pub(super) fn between(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().filter_map(move |&(begin, end)| {
            let (begin, end) = (begin.max(from), end.unwrap_or(to).min(to));
            (begin < end).then_some((begin, end))
        })
    }

    /// The parts between two moments that are longer than the tolerance of a pace.
    pub(super) fn longer(
        &self,
        from: u64,
        to: u64,
        pace: Pace,
    ) -> impl Iterator<Item = (u64, u64)> {
        let tolerance = millis(pace.tolerance());
        self.between(from, to).filter(move |(from, to)| to - from > tolerance)
    }
}

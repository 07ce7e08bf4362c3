//! How much the beats of other registrations count when the guard decides whether a path is broken (L6).

use std::ops::{Add, AddAssign};

/// With fewer beats due than this, the number of beats that arrived proves nothing.
const ENOUGH_DUE: usize = 10;

/// The number of parts of an instance, because a share of a registration need not be a whole number.
const PARTS: usize = 1000;

/// How many beats were due and how many of them arrived, of one registration or of the weighted sum of several. All
/// numbers are in thousandths of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weight {
    due: usize,
    arrived: usize,
    /// Instances with a beat due, and those that are on time without one.
    known: usize,
    /// Instances from which a beat arrived, or from which none was due yet.
    on_time: usize,
    cut: bool,
}

impl Weight {
    /// So many instances, from each of which a beat arrived.
    pub(super) fn arrived(instances: usize) -> Self {
        let parts = instances * PARTS;
        Self { due: parts, arrived: parts, known: parts, on_time: parts, cut: false }
    }

    /// Counts one instance in full.
    pub(super) fn count(&mut self, sign: Sign) {
        self.known += PARTS;
        match sign {
            Sign::Arrived => {
                self.due += PARTS;
                self.arrived += PARTS;
                self.on_time += PARTS;
            }
            Sign::OnTime => self.on_time += PARTS,
            Sign::Missing => self.due += PARTS,
        }
    }

    /// If there are more than `instances`, the same share of this number.
    pub(super) fn at_most(self, instances: usize) -> Self {
        let most = instances * PARTS;
        let share =
            |part: usize, whole: usize| if whole > most { part * most / whole } else { part };
        Self {
            due: self.due.min(most),
            arrived: share(self.arrived, self.due),
            known: self.known.min(most),
            on_time: share(self.on_time, self.known),
            cut: self.cut || self.due > most,
        }
    }

    /// Whether so few beats arrived that the instances cannot be the cause.
    pub(super) fn is_broken(self) -> bool {
        self.is_enough() && self.hardly_any_arrived()
    }

    /// Whether enough beats were due to decide.
    pub(super) fn is_enough(self) -> bool {
        self.due >= ENOUGH_DUE * PARTS
    }

    /// Whether less than a tenth of the due beats arrived.
    pub(super) fn hardly_any_arrived(self) -> bool {
        self.arrived * 10 < self.due
    }

    /// Whether so many beats arrived that the others need not be counted: a tenth of the due beats; or half of them,
    /// if few were due.
    pub(super) fn shows_a_whole_way(self) -> bool {
        let one_of = if self.is_enough() { 10 } else { 2 };
        self.due > 0 && self.arrived * one_of >= self.due
    }

    /// Whether nine tenths of the other instances are on time, given that one is silent.
    pub(super) fn is_on_time(self) -> bool {
        self.on_time > 0 && self.on_time * 10 >= self.known.saturating_sub(PARTS) * 9
    }

    /// The numbers for messages, in whole instances.
    pub(super) fn flow(self) -> BeatCount {
        BeatCount { due: self.due.div_ceil(PARTS), arrived: self.arrived / PARTS }
    }

    /// Whether some instances were not counted in full.
    pub(super) fn is_cut(self) -> bool {
        self.cut
    }
}

impl Add for Weight {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            due: self.due + other.due,
            arrived: self.arrived + other.arrived,
            known: self.known + other.known,
            on_time: self.on_time + other.on_time,
            cut: self.cut || other.cut,
        }
    }
}

impl AddAssign for Weight {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// How many instances had a beat due by the end of a stretch of time, and from how many of them one arrived in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BeatCount {
    /// Instances with a beat due.
    pub due: usize,
    /// Those of them from which a beat arrived.
    pub arrived: usize,
}

/// What the beats of one instance say of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// A beat has arrived in the window.
    Arrived,
    /// No beat was due in the window.
    OnTime,
    /// A beat is due and has not arrived.
    Missing,
}

//! What the beats of others weigh when it is asked whether a way is broken (L6).

use std::ops::{Add, AddAssign};

use super::flow::{Flow, Sign};

/// With fewer beats due than this nothing can be told from how many arrived.
const ENOUGH_DUE: usize = 10;

/// Parts of an instance: a share of a registration need not be a whole number.
const PARTS: usize = 1000;

/// How much was due and how much of it arrived, of one registration or of several that are weighed. All numbers are in
/// thousandths of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weight {
    due: usize,
    arrived: usize,
    /// Those due, and those on time.
    known: usize,
    /// Instances from which a beat arrived, or from which none was due yet.
    on_time: usize,
    cut: bool,
}

impl Weight {
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

    /// The same share of fewer instances, where there are more than these.
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

    /// Whether so few arrived that it cannot be the instances.
    pub(super) fn is_broken(self) -> bool {
        self.is_enough() && self.hardly_any_arrived()
    }

    /// Whether so many were due that something can be told.
    pub(super) fn is_enough(self) -> bool {
        self.due >= ENOUGH_DUE * PARTS
    }

    /// Less than a tenth.
    pub(super) fn hardly_any_arrived(self) -> bool {
        self.arrived * 10 < self.due
    }

    /// Whether so many arrived that nothing needs to be asked about others: a tenth; of few, half.
    pub(super) fn shows_a_whole_way(self) -> bool {
        let one_of = if self.is_enough() { 10 } else { 2 };
        self.due > 0 && self.arrived * one_of >= self.due
    }

    /// Whether nine tenths of the others are on time, if one is silent for certain.
    pub(super) fn is_on_time(self) -> bool {
        self.on_time > 0 && self.on_time * 10 >= self.known.saturating_sub(PARTS) * 9
    }

    /// As it is told.
    pub(super) fn flow(self) -> Flow {
        Flow { due: self.due.div_ceil(PARTS), arrived: self.arrived / PARTS }
    }

    /// Whether some were not counted in full.
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

//! What strikes a cluster in a schedule: faults, and the actions of people.

mod edits;
mod network;
mod operator;
mod rollback;
mod workloads;

use std::rc::Rc;

use crate::{random::Random, run::Run};

pub use edits::{create_legacy, undo};
pub use rollback::put_back;
pub use workloads::{leave, restore_label};

/// Durations are in milliseconds. An index is taken modulo the number of objects that it selects from.
#[derive(Debug, Clone)]
pub enum Fault {
    Network(network::Fault),
    Operator(operator::Fault),
    Workloads(workloads::Fault),
    Edit(edits::Edit),
    Rollback(rollback::Rollback),
}

/// Draws a duration that is relevant for a ttl, from a tenth of the ttl to three times the ttl.
fn span(random: &Random, ttl: u64) -> u64 {
    let about = random.pick(&[1, 3, 6, 9, 10, 12, 20, 30]) * ttl / 10;
    random.between(about * 8 / 10, about * 12 / 10).max(1)
}

const DAY: u64 = 86_400_000;

/// Draws the error of a wall clock, in milliseconds.
fn clock(random: &Random) -> i64 {
    let millis = i64::try_from(random.between(0, 2 * DAY)).expect("small");
    millis - i64::try_from(DAY).expect("small")
}

/// Draws a pace: ttl and interval, in milliseconds.
pub fn pace(random: &Random) -> (u64, u64) {
    let ttl = random.pick(&[1000, 2000, 2000, 3000, 3000, 5000, 5000, 5000, 10_000, 20_000]);
    let interval = (ttl * random.between(20, 70) / 100).max(100);
    (ttl, interval)
}

impl Fault {
    pub fn draw(random: &Random, ttl: u64) -> Self {
        match random.between(0, 44) {
            0..=16 => Self::Network(network::Fault::draw(random, ttl)),
            17..=24 => Self::Operator(operator::Fault::draw(random, ttl)),
            25..=35 => Self::Workloads(workloads::Fault::draw(random, ttl)),
            _ => Self::Edit(edits::Edit::draw(random, ttl)),
        }
    }

    /// Draws a rollback of the store within half of `horizon`.
    pub fn rollback(random: &Random, ttl: u64, horizon: u64) -> Self {
        Self::Rollback(rollback::Rollback::draw(random, ttl, horizon))
    }

    /// An instance dies.
    pub fn death(random: &Random) -> Self {
        Self::Workloads(workloads::Fault::Die { index: random.index(64) })
    }

    /// A process ends again and again, each time after `every`.
    pub fn crash_loop(every: u64, times: u64) -> Self {
        Self::Operator(operator::Fault::CrashLoop { place: 0, every, times })
    }

    /// The wall clock of a place is wrong.
    pub fn operator_clock(place: usize, millis: i64) -> Self {
        Self::Operator(operator::Fault::Clock { place, millis })
    }

    /// A person sets minReady.
    pub fn min_ready(registration: usize, min_ready: u64) -> Self {
        Self::Edit(edits::Edit::MinReady { registration, min_ready })
    }

    /// Starts the fault, and schedules its end.
    pub fn strike(self, run: &Rc<Run>) {
        run.check.tell(|| format!("{self:?}"));
        match self {
            Self::Network(fault) => fault.strike(run),
            Self::Operator(fault) => fault.strike(run),
            Self::Workloads(fault) => fault.strike(run),
            Self::Edit(edit) => edit.strike(run),
            Self::Rollback(rollback) => rollback.strike(run),
        }
    }
}

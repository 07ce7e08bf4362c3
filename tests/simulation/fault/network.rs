//! Outages, partitions, lossy networks, and watches that do not work as they should.

use std::rc::Rc;

use super::span;
use crate::{
    network::{Conditions, Cut, GOOD, Mode},
    object::{ENDPOINTS, KINDS, LEASES, PODS, REGISTRATIONS, SERVICES, SLICES},
    random::Random,
    run::Run,
    store::Resource,
    watches::End,
};

/// The workloads that are cut off.
#[derive(Debug, Clone, Copy)]
pub enum Scope {
    All,
    Namespace(usize),
    One(usize),
}

#[derive(Debug, Clone)]
pub enum Fault {
    Outage { frozen: bool, lasts: u64 },
    Conditions { conditions: Conditions, lasts: u64 },
    CutWorkloads { scope: Scope, lasts: u64 },
    CutOperator { place: usize, lasts: u64 },
    Stall { place: usize, kind: Resource, lasts: u64 },
    Break { place: usize, kind: Resource, how: End },
    Repeat { place: usize, kind: Resource, events: usize },
    StaleLists { lasts: u64 },
}

impl Fault {
    pub fn draw(random: &Random, ttl: u64) -> Self {
        let (place, lasts) = (random.index(3), span(random, ttl));
        let kind = random.pick(&[
            LEASES,
            LEASES,
            LEASES,
            PODS,
            SERVICES,
            SLICES,
            SLICES,
            ENDPOINTS,
            REGISTRATIONS,
        ]);
        match random.between(0, 16) {
            0..=3 => Self::Outage { frozen: random.percent(60), lasts },
            4 | 5 => Self::Conditions { conditions: conditions(random), lasts },
            6 | 7 => {
                let index = random.index(64);
                let all = [Scope::All, Scope::Namespace(index), Scope::One(index)];
                Self::CutWorkloads { scope: random.pick(&all), lasts }
            }
            8 | 9 => Self::CutOperator { place, lasts },
            10..=12 => Self::Stall { place, kind, lasts },
            13 | 14 => {
                let how = if random.percent(40) { End::Resumable } else { End::Expired };
                Self::Break { place, kind, how }
            }
            15 => Self::Repeat { place, kind, events: random.index(12) + 1 },
            _ => Self::StaleLists { lasts },
        }
    }

    pub fn strike(self, run: &Rc<Run>) {
        let network = &run.network;
        match self {
            Self::Outage { frozen, lasts } => {
                network.set_mode(if frozen { Mode::Frozen } else { Mode::Down });
                run.later(lasts, |run| run.network.set_mode(Mode::Up));
            }
            Self::Conditions { conditions, lasts } => {
                network.conditions.set(conditions);
                run.later(lasts, |run| run.network.conditions.set(GOOD));
            }
            Self::CutWorkloads { scope, lasts } => {
                for cut in cuts(run, scope) {
                    network.cut(cut);
                    run.later(lasts, move |run| run.network.mend(&cut));
                }
            }
            Self::CutOperator { place, lasts } => {
                let place = run.place(place);
                network.cut(Cut::Operator(place));
                KINDS.iter().for_each(|kind| network.stall(place, kind));
                run.later(lasts, move |run| {
                    run.network.mend(&Cut::Operator(place));
                    KINDS.iter().for_each(|kind| run.network.unstall(place, kind));
                });
            }
            Self::Stall { place, kind, lasts } => {
                let place = run.place(place);
                network.stall(place, kind);
                run.later(lasts, move |run| run.network.unstall(place, kind));
            }
            Self::Break { place, kind, how } => network.break_watches(run.place(place), kind, how),
            Self::Repeat { place, kind, events } => network.repeat(run.place(place), kind, events),
            Self::StaleLists { lasts } => {
                network.stale_lists.set(60);
                run.later(lasts, |run| run.network.stale_lists.set(0));
            }
        }
    }
}

fn conditions(random: &Random) -> Conditions {
    Conditions {
        latency: random.pick(&[3, 50, 400, 3000]),
        lost: random.pick(&[0, 5, 30]),
        unanswered: random.pick(&[0, 5, 30]),
        refused: random.pick(&[0, 10, 50]),
        lag: random.pick(&[3, 100, 1000]),
    }
}

fn cuts(run: &Run, scope: Scope) -> Vec<Cut> {
    match scope {
        Scope::All => run.namespaces.iter().map(|namespace| Cut::Namespace(namespace)).collect(),
        Scope::Namespace(index) => vec![Cut::Namespace(run.namespace(index))],
        Scope::One(index) => vec![Cut::Workload(run.workload(index).number)],
    }
}

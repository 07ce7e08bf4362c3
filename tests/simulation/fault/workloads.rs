//! Deaths, departures, returns and replacements of instances.

use std::rc::Rc;

use beatkeeper_api::heartbeat::REGISTRATION_LABEL;
use beatkeeper_core::vocabulary::key::Key;
use serde_json::json;

use super::{clock, span};
use crate::{object::LEASES, random::Random, run::Run, workload::Workload};

#[derive(Debug, Clone)]
pub enum Fault {
    Die {
        index: usize,
    },
    MassDeath {
        namespace: usize,
    },
    Leave {
        index: usize,
    },
    Return {
        index: usize,
    },
    ReplacePod {
        index: usize,
    },
    Suspend {
        index: usize,
        lasts: u64,
    },
    Clock {
        index: usize,
        millis: i64,
    },
    /// A person removes the label of a Lease.
    Strip {
        index: usize,
        lasts: u64,
    },
}

impl Fault {
    pub fn draw(random: &Random, ttl: u64) -> Self {
        let (index, lasts) = (random.index(64), span(random, ttl));
        match random.between(0, 11) {
            0..=2 => Self::Die { index },
            3 => Self::MassDeath { namespace: index },
            4 | 5 => Self::Leave { index },
            6 | 7 => Self::Return { index },
            8 => Self::ReplacePod { index },
            9 => Self::Suspend { index, lasts },
            10 => Self::Clock { index, millis: clock(random) },
            _ => Self::Strip { index, lasts },
        }
    }

    pub fn strike(self, run: &Rc<Run>) {
        match self {
            Self::Die { index } => run.workload(index).die(),
            Self::MassDeath { namespace } => {
                let namespace = run.namespace(namespace);
                let all = run.check.workloads();
                all.iter().filter(|one| one.namespace == namespace).for_each(|one| one.die());
            }
            Self::Leave { index } => leave(run, &run.workload(index)),
            Self::Return { index } => run.workload(index).start(),
            Self::ReplacePod { index } => {
                let workload = run.workload(index);
                if workload.in_pod {
                    workload.replace_pod();
                }
            }
            Self::Suspend { index, lasts } => {
                let Some(process) = run.workload(index).process.get() else { return };
                run.executor.suspend(process);
                run.later(lasts, move |run| run.executor.resume(process));
            }
            Self::Clock { index, millis } => run.workload(index).skew.set(millis),
            Self::Strip { index, lasts } => {
                let lease = run.workload(index).lease();
                relabel(run, &lease, None);
                run.later(lasts, move |run| restore_label(run, &lease));
            }
        }
    }
}

/// Deregisters the instance.
pub fn leave(run: &Run, workload: &Workload) {
    workload.die();
    run.network.delete(LEASES, &workload.lease(), None);
}

/// A person changes the label of a Lease or removes it.
fn relabel(run: &Run, lease: &Key, registration: Option<&str>) {
    let patch = json!({ "metadata": { "labels": { REGISTRATION_LABEL: registration } } });
    run.network.patch(LEASES, lease, patch);
}

/// A person gives a Lease its label back.
pub fn restore_label(run: &Run, lease: &Key) {
    let registration = lease.name.split('.').next().unwrap_or_default();
    relabel(run, lease, Some(registration));
}

//! The store goes back to a backup.

use std::rc::Rc;

use crate::{network::Mode, random::Random, run::Run, store::Backup};

/// A backup is made now. After the time `after`, the API server is stopped for the time `down`, and the
/// backup is restored.
#[derive(Debug, Clone)]
pub struct Rollback {
    after: u64,
    down: u64,
    /// Whether the versions have reached those of the former history.
    caught_up: bool,
    /// Whether all replicas restart.
    restart: bool,
}

impl Rollback {
    pub fn draw(random: &Random, ttl: u64, horizon: u64) -> Self {
        Self {
            after: random.between(ttl / 10, horizon / 2),
            // No store can be restored within half a second.
            down: random.between(600, ttl.max(700)),
            caught_up: random.percent(40),
            restart: random.percent(25),
        }
    }

    pub fn strike(self, run: &Rc<Run>) {
        let Self { after, down, caught_up, restart } = self;
        let backup = run.network.server.store.borrow().back_up();
        run.later(after, move |run| {
            run.network.stop_for_a_restore();
            run.later(down, move |run| put_back(run, backup, caught_up, restart));
        });
    }
}

/// Restores a backup, and starts the API server.
pub fn put_back(run: &Rc<Run>, backup: Backup, caught_up: bool, restart: bool) {
    let network = &run.network;
    if network.mode.get() != Mode::Down {
        // Another fault has already started the API server.
        return;
    }
    run.check.tell(|| "the store goes back".to_owned());
    network.server.store.borrow_mut().restore(backup, caught_up);
    run.check.went_back(&network.server.store.borrow(), run.executor.now());
    for workload in run.check.workloads() {
        workload.follow_pod();
        workload.collect();
    }
    if restart {
        run.restart_replicas();
    }
    network.set_mode(Mode::Up);
}

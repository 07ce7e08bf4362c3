//! The stream of one replica, as the gateway sees it.

use std::collections::HashSet;

use crate::carriers::frames::{InstanceId, Question, Tick};

/// What the gateway knows of a stream.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Whether the first frames have been exchanged, so that batches may follow.
    open: bool,
    /// The latest tick of the replica.
    pub(super) tick: Tick,
    /// The question that the next batch answers.
    pub(super) answers: Option<Question>,
    introduced: HashSet<InstanceId>,
}

impl Link {
    pub(super) fn open(&mut self) {
        self.open = true;
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether the instance has to be introduced, which is then done.
    pub(super) fn introduce(&mut self, id: InstanceId) -> bool {
        self.introduced.insert(id)
    }

    /// Lets an instance be introduced once more.
    pub(super) fn forget_introduction(&mut self, id: InstanceId) {
        self.introduced.remove(&id);
    }
}

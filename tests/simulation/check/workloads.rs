//! The workloads of a schedule.

use std::rc::Rc;

use super::Check;
use crate::workload::Workload;

impl Check {
    /// Forgets the workloads. They refer to the network, and it to this: the cycle would keep memory allocated.
    pub fn end(&self) {
        self.workloads.borrow_mut().clear();
    }

    pub fn join(&self, workload: Rc<Workload>) {
        self.workloads.borrow_mut().push(workload);
    }

    pub fn workloads(&self) -> Vec<Rc<Workload>> {
        self.workloads.borrow().clone()
    }
}

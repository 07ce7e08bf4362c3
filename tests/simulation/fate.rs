//! Halts, resumes and ends the tasks of one process of the operator.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Waker,
};

use beatkeeper::controller::Supervisor;
use tokio::task::AbortHandle;

#[derive(Default)]
pub struct Fate {
    halted: AtomicBool,
    dead: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
    main: Mutex<Option<AbortHandle>>,
}

impl Fate {
    /// Sets the first task of the process.
    pub fn begin(&self, main: AbortHandle) {
        *self.main.lock().expect("no panic") = Some(main);
    }

    pub fn suspend(&self) {
        self.halted.store(true, Relaxed);
    }

    /// Lets the tasks go on that had something to do in the meantime, in the order that `order` gives them.
    pub fn resume(&self, order: impl FnOnce(&mut Vec<Waker>)) {
        self.halted.store(false, Relaxed);
        let mut waiting = std::mem::take(&mut *self.waiting.lock().expect("no panic"));
        order(&mut waiting);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ends the process as SIGKILL does: none of its tasks runs any more.
    pub fn kill(&self) {
        self.dead.store(true, Relaxed);
        self.halted.store(true, Relaxed);
        if let Some(main) = self.main.lock().expect("no panic").take() {
            main.abort();
        }
        self.waiting.lock().expect("no panic").clear();
    }
}

impl Supervisor for Fate {
    fn may_run(&self, waker: &Waker) -> bool {
        if !self.halted.load(Relaxed) {
            return true;
        }
        if !self.dead.load(Relaxed) {
            self.waiting.lock().expect("no panic").push(waker.clone());
        }
        false
    }
}

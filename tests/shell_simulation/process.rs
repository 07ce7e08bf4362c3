//! Processes of the operator. Their tasks run, are suspended, or have ended.

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
    waiting: Mutex<Vec<Waker>>,
    pub main: Mutex<Option<AbortHandle>>,
}

impl Fate {
    pub fn suspend(&self) {
        self.halted.store(true, Relaxed);
    }

    pub fn resume(&self) {
        self.halted.store(false, Relaxed);
        let waiting = std::mem::take(&mut *self.waiting.lock().expect("no panic"));
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ends the process as a kill does: none of its tasks runs any more.
    pub fn kill(&self) {
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
        self.waiting.lock().expect("no panic").push(waker.clone());
        false
    }
}

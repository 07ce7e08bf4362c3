//! Runs work that may block on a thread that beats do not wait for.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

/// The maximum number of works that wait; further ones are dropped.
const QUEUE: usize = 256;

type Work = Box<dyn FnOnce() + Send>;

/// A thread that does one piece of work after the other. It ends when this value is dropped.
pub(crate) struct BackgroundThread {
    queue: SyncSender<Work>,
    dropped: Arc<AtomicU64>,
}

impl BackgroundThread {
    pub(crate) fn new() -> Self {
        let (queue, works) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        // If no thread can be started, all work is dropped, and beats continue.
        let _ =
            thread::Builder::new().name("events".to_owned()).spawn(move || do_all(&works, &lost));
        Self { queue, dropped }
    }

    /// Queues work, or drops it if the queue is full.
    pub(crate) fn ask(&self, work: impl FnOnce() + Send + 'static) {
        if self.queue.try_send(Box::new(work)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Waits until all queued work is done, for at most `within`.
    pub(crate) async fn done(&self, within: Duration) {
        let (done, heard) = oneshot::channel();
        self.ask(move || {
            // The receiver may have given up.
            let _ = done.send(());
        });
        let _ = timeout(within, heard).await;
    }
}

fn do_all(works: &Receiver<Work>, dropped: &AtomicU64) {
    while let Ok(work) = works.recv() {
        // The work may be a handler of the app, and its panic must not end this thread.
        let _ = catch_unwind(AssertUnwindSafe(work));
        match dropped.swap(0, Relaxed) {
            0 => {}
            lost => {
                tracing::warn!(
                    lost,
                    "events were dropped: a handler, or the log, does not keep up"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, mpsc};

    #[tokio::test]
    async fn a_handler_that_blocks_delays_no_caller_and_events_beyond_the_buffer_are_dropped() {
        let (aside, (go_on, blocked)) = (BackgroundThread::new(), mpsc::channel::<()>());
        aside.ask(move || {
            let _ = blocked.recv();
        });
        let done = Arc::new(Mutex::new(Vec::new()));
        for n in 0..2 * QUEUE {
            let done = Arc::clone(&done);
            aside.ask(move || done.lock().expect("unpoisoned").push(n));
        }
        aside.done(Duration::from_millis(10)).await;
        assert_eq!(*done.lock().expect("unpoisoned"), [0; 0]);
        drop(go_on);
        while done.lock().expect("unpoisoned").len() < QUEUE - 1 {
            tokio::task::yield_now().await;
        }
        aside.ask(|| panic!("a handler's own"));
        aside.done(Duration::from_secs(30)).await;
        let done = done.lock().expect("unpoisoned");
        assert!(done.len() <= QUEUE + 1 && done.is_sorted(), "{done:?}");
    }
}

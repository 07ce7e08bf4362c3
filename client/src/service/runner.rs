//! Runs a heartbeat loop: in a task of the current runtime, or on a thread of its own.

use std::thread;

use futures::future::BoxFuture;
use tokio::sync::{oneshot, watch};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};

use crate::{
    error::Error,
    failure::Failure,
    heartbeat_loop::{HeartbeatLoop, Progress},
};

/// How a loop ended.
type Ended = Result<(), Failure>;

/// A loop that beats. If this value is dropped, it stops without deregistering.
pub(crate) struct Runner {
    stop: CancellationToken,
    ended: BoxFuture<'static, Option<Ended>>,
    _abandoned: Option<DropGuard>,
}

impl Runner {
    /// Stops the loop, which deregisters.
    pub(crate) async fn stop(self) -> Ended {
        self.stop.cancel();
        // `None`: the loop has panicked, and there is no result.
        self.ended.await.unwrap_or(Ok(()))
    }
}

/// Runs the loop in a task.
pub(crate) fn on_this_runtime(
    begin: impl FnOnce() -> Result<HeartbeatLoop, Error>,
    stop: CancellationToken,
) -> Result<(Runner, watch::Receiver<Progress>), Error> {
    let heartbeat_loop = begin()?;
    let progress = heartbeat_loop.progress();
    let task = AbortOnDropHandle::new(tokio::spawn(heartbeat_loop.run(stop.clone())));
    let ended = Box::pin(async move { task.await.ok() });
    Ok((Runner { stop, ended, _abandoned: None }, progress))
}

/// Runs the loop on a thread with a runtime of its own. The client is created on that runtime, because a
/// connection lives on the runtime that created it.
pub(crate) async fn on_a_thread(
    begin: impl FnOnce() -> Result<HeartbeatLoop, Error> + Send + 'static,
    stop: CancellationToken,
) -> Result<(Runner, watch::Receiver<Progress>), Error> {
    let (began, beginning) = oneshot::channel();
    let (ends, ended) = oneshot::channel();
    let abandoned = CancellationToken::new();
    let (stopped, dropped) = (stop.clone(), abandoned.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("heartbeat".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let heartbeat_loop = match begin() {
                Ok(heartbeat_loop) => heartbeat_loop,
                Err(error) => return drop(began.send(Err(error))),
            };
            if began.send(Ok(heartbeat_loop.progress())).is_err() {
                return;
            }
            if let Some(end) = dropped.run_until_cancelled(heartbeat_loop.run(stopped)).await {
                // The receiver may be gone.
                let _ = ends.send(end);
            }
        });
    })?;
    let progress = beginning.await.unwrap_or_else(|_| {
        Err(Error::System(std::io::Error::other("the thread that beats has ended")))
    })?;
    let ended = Box::pin(async move { ended.await.ok() });
    Ok((Runner { stop, ended, _abandoned: Some(abandoned.drop_guard()) }, progress))
}

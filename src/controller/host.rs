//! The host of the operator: the connection to the API server, the clocks, the execution of its tasks, and an observer.
//!
//! The shell reaches the outside only through these. So a simulation can provide its own API server, time and
//! processes, and can check each decision.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Poll, Waker},
};

use beatkeeper_client::names::hostname;
use futures::future::Either;
use kube::Client;

use crate::controller::{
    carriers::port::Network, clock::Clock, observer::Observer, trace::collector::Collector,
};

/// The host of one process of the operator.
pub struct Host<S> {
    /// The service that sends requests to the API server.
    pub api_server: S,
    /// The namespace of the operator's own Leases, if `POD_NAMESPACE` is not set.
    pub namespace: String,
    /// The identity of this process, which no other process has.
    pub identity: String,
    /// The clocks of this process.
    pub clock: Clock,
    /// The process that all tasks belong to.
    pub process: Process,
    /// Sees what this process decides.
    pub observer: Arc<dyn Observer>,
    /// Where traces are sent; None if they are not.
    pub collector: Option<Collector>,
    /// The network of gateways; None if there are none.
    pub gateways: Option<Arc<dyn Network>>,
}

/// Decides when the tasks of a process run. The simulation uses it to suspend and end processes.
pub trait Supervisor: Send + Sync + 'static {
    /// Whether a task may run now. If not, `waker` is called as soon as it may.
    fn may_run(&self, waker: &Waker) -> bool;
}

/// The process that tasks belong to.
#[derive(Clone, Default)]
pub struct Process(Option<Arc<dyn Supervisor>>);

impl Process {
    /// A process with tasks that run only when the supervisor permits it.
    pub fn supervised(supervisor: Arc<dyn Supervisor>) -> Self {
        Self(Some(supervisor))
    }

    /// Makes a future a task of this process. Every spawned future must pass through here.
    pub fn task<F: Future>(&self, task: F) -> Task<F> {
        match &self.0 {
            None => Either::Left(task),
            Some(supervisor) => {
                Either::Right(Supervised { supervisor: supervisor.clone(), task: Box::pin(task) })
            }
        }
    }
}

/// A task of a process.
pub type Task<F> = Either<F, Supervised<F>>;

/// A task that runs only when a supervisor permits it.
pub struct Supervised<F> {
    supervisor: Arc<dyn Supervisor>,
    task: Pin<Box<F>>,
}

impl<F: Future> Future for Supervised<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<F::Output> {
        if self.supervisor.may_run(context.waker()) {
            self.task.as_mut().poll(context)
        } else {
            Poll::Pending
        }
    }
}

/// The longest name of a replica. It leaves room for the other parts of the names of objects.
const NAME_MAX: usize = 200;

/// The identity of this process: the name of its Pod, or else of its host, and a random suffix. A restarted
/// container in the same Pod is a different replica.
pub(crate) fn identity() -> String {
    let name: String = pod_name().unwrap_or_else(hostname).chars().take(NAME_MAX).collect();
    format!("{name}-{:08x}", fastrand::u32(..))
}

/// The namespace of the operator's own Leases: the namespace of its Pod, or else of its kubeconfig.
pub(crate) fn own_namespace(client: &Client) -> String {
    given("POD_NAMESPACE").unwrap_or_else(|| client.default_namespace().to_owned())
}

/// The name of the Pod of this process, if it is set.
pub(crate) fn pod_name() -> Option<String> {
    given("POD_NAME")
}

fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    };

    #[derive(Default)]
    struct Halt {
        halted: AtomicBool,
        waiting: Mutex<Vec<Waker>>,
    }

    impl Supervisor for Halt {
        fn may_run(&self, waker: &Waker) -> bool {
            if self.halted.load(Relaxed) {
                self.waiting.lock().expect("no panic").push(waker.clone());
                return false;
            }
            true
        }
    }

    #[tokio::test]
    async fn a_task_rests_while_its_supervisor_does_not_let_it_run_and_then_goes_on() {
        let halt = Arc::new(Halt { halted: AtomicBool::new(true), ..Halt::default() });
        let process = Process::supervised(halt.clone());
        let task = tokio::spawn(process.task(async { 7 }));
        while halt.waiting.lock().expect("no panic").is_empty() {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        halt.halted.store(false, Relaxed);
        halt.waiting.lock().expect("no panic").drain(..).for_each(Waker::wake);
        assert_eq!(task.await.expect("no panic"), 7);
    }
}

//! The probes of an instance, and their combined result.
//!
//! Starting a process waits for the disk that holds its program. A probe must not delay a beat, so the probes
//! have a thread and a runtime of their own.

use std::{
    sync::{Arc, OnceLock},
    thread,
};

use futures::future::{pending, select_all};
use tokio::{
    runtime::{Builder, Handle},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::agent::{
    metrics::counts::InstanceMetrics,
    probe::{self, Outcome, Probe, Series, Verdict},
};

/// The combined result of all probes of an instance.
pub(super) struct ProbeResults {
    verdicts: Vec<watch::Receiver<Verdict>>,
    _probing: Vec<AbortOnDropHandle<()>>,
}

impl ProbeResults {
    /// Begins to probe, and counts the outcomes.
    pub(super) fn probe(probes: &[Probe], metrics: &Arc<InstanceMetrics>) -> Self {
        let begin = |probe: &Probe| begin(probe.clone(), metrics.clone());
        let (verdicts, probing) = probes.iter().map(begin).unzip();
        Self { verdicts, _probing: probing }
    }

    /// Returns the combined verdict: healthy if each probe is, with the warnings; otherwise unhealthy, with
    /// the reasons.
    pub(super) fn verdict(&self) -> Verdict {
        let all: Vec<Verdict> = self.verdicts.iter().map(|one| one.borrow().clone()).collect();
        let healthy = all.iter().all(|one| one.healthy);
        let decided = match healthy {
            true => all.iter().all(|one| one.decided),
            false => all.iter().any(|one| one.decided && !one.healthy),
        };
        let messages: Vec<String> = all
            .into_iter()
            .filter(|one| one.healthy == healthy)
            .filter_map(|one| one.message)
            .collect();
        let message = (!messages.is_empty()).then(|| messages.join("; "));
        Verdict { healthy, message, decided }
    }

    pub(super) async fn changed(&mut self) {
        if self.verdicts.is_empty() {
            return pending().await;
        }
        let change = async |one: &mut watch::Receiver<Verdict>| {
            // This does not happen, because a probe that panics counts as failed.
            if one.changed().await.is_err() {
                pending().await
            }
        };
        select_all(self.verdicts.iter_mut().map(|one| Box::pin(change(one)))).await;
    }
}

fn begin(
    probe: Probe,
    metrics: Arc<InstanceMetrics>,
) -> (watch::Receiver<Verdict>, AbortOnDropHandle<()>) {
    let (sender, receiver) = watch::channel(Series::new(&probe).verdict().clone());
    let probing = async move {
        let observe = |outcome: &Outcome| metrics.probed(&probe.check, outcome);
        probe::run(&probe, &sender, &CancellationToken::new(), observe).await;
    };
    (receiver, AbortOnDropHandle::new(probe_runtime().spawn(probing)))
}

/// Returns the runtime of the thread for probes; if the system gives no thread, the current runtime.
fn probe_runtime() -> Handle {
    static PROBING: OnceLock<Option<Handle>> = OnceLock::new();
    PROBING.get_or_init(start_thread).clone().unwrap_or_else(Handle::current)
}

fn start_thread() -> Option<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build().ok()?;
    let handle = runtime.handle().clone();
    let probing = move || runtime.block_on(std::future::pending::<()>());
    thread::Builder::new().name("probes".to_owned()).spawn(probing).ok()?;
    Some(handle)
}

//! One instance that an agent beats for. Its beats carry the results of its probes.

use std::sync::Arc;

use anyhow::Result;
use beatkeeper_api::heartbeat::Health;
use beatkeeper_client::{
    Connection,
    heartbeat_loop::{HeartbeatLoop, Progress},
    lease::HealthReport,
    publication::Publication,
};
use futures::future::pending;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    control::{Controls, OnFailure, Predecessor, StatusSender, WorkerState},
    probe_results::ProbeResults,
};
use crate::agent::{
    console::Console, metrics::counts::InstanceMetrics, plan::InstancePlan, probe::Verdict,
};

impl InstancePlan {
    /// Beats until it is stopped; then deregisters. If there is a former task, that task keeps beating until
    /// enough probes have a result: until then its word is the only one known.
    ///
    /// # Errors
    /// Deregistering failed.
    pub async fn run(
        self,
        on_failure: OnFailure,
        connection: Connection,
        controls: Controls,
        page: StatusSender,
        console: Console,
        predecessor: Option<Predecessor>,
    ) -> Result<()> {
        let StatusSender { state, standing, metrics } = page;
        let probe_results = ProbeResults::probe(&self.probes, &metrics);
        let worker = Worker {
            instance: self,
            connection,
            controls,
            state,
            standing,
            metrics,
            console,
            probe_results,
        };
        match on_failure {
            OnFailure::ReportFailing { started_here } => worker.report_health(started_here).await,
            OnFailure::StopBeating => worker.beat_while_alive(predecessor).await,
        }
    }
}

struct Worker {
    instance: InstancePlan,
    connection: Connection,
    controls: Controls,
    state: watch::Sender<WorkerState>,
    standing: watch::Sender<Option<Publication>>,
    metrics: Arc<InstanceMetrics>,
    console: Console,
    probe_results: ProbeResults,
}

impl Worker {
    async fn report_health(mut self, started_here: bool) -> Result<()> {
        let word = |verdict: Verdict| word(verdict, started_here);
        let (words, heard) = watch::channel(word(self.probe_results.verdict()));
        let heartbeat_loop = self.heartbeat_loop(heard);
        let mut progress = heartbeat_loop.progress();
        let Controls { stop, leave, .. } = self.controls.clone();
        let speaking = async {
            loop {
                tokio::select! {
                    () = self.controls.drain.cancelled() => break,
                    () = self.probe_results.changed() => print(&words, word(self.probe_results.verdict())),
                    () = next(&mut progress) => self.advance(&progress),
                }
            }
            print(&words, DRAINING);
            loop {
                next(&mut progress).await;
                self.advance(&progress);
            }
        };
        tokio::select! {
            biased;
            () = leave.cancelled() => Ok(()),
            ended = heartbeat_loop.run(stop) => Ok(ended?),
            () = speaking => Ok(()),
        }
    }

    async fn beat_while_alive(mut self, mut predecessor: Option<Predecessor>) -> Result<()> {
        let Controls { stop, leave, .. } = self.controls.clone();
        // The loop that beat last; it deregisters at the end.
        let mut last: Option<HeartbeatLoop> = None;
        let for_ever = async {
            if predecessor.is_some() {
                self.await_decision().await;
            }
            if let Some(predecessor) = predecessor.take() {
                predecessor.leave().await;
            }
            loop {
                self.await_recovery().await;
                self.beat_while_healthy(&mut last).await;
                self.state.send_replace(WorkerState::Settled);
                self.standing.send_replace(None);
                let why = self.probe_results.verdict().message.unwrap_or_default();
                self.console.print(&format!("silent from here on: {why}"));
            }
        };
        tokio::select! {
            biased;
            // The target does not end with the agent.
            () = leave.cancelled() => return Ok(()),
            // The agent is not to beat for the target any more.
            () = stop.cancelled() => {}
            () = for_ever => {}
        }
        if let Some(predecessor) = predecessor {
            return predecessor.stop().await;
        }
        match last {
            Some(mut heartbeat_loop) => Ok(heartbeat_loop.end().await?),
            None => Ok(()),
        }
    }

    /// Waits until enough probes have a result.
    async fn await_decision(&mut self) {
        while !matches!(self.probe_results.verdict(), Verdict { decided: true, .. }) {
            self.probe_results.changed().await;
        }
        self.settle_if_dead();
    }

    /// Marks the instance as settled if the probes have found it dead. A verdict that has changed always
    /// comes from a probe. A verdict that finds the instance alive is followed by a beat.
    fn settle_if_dead(&self) {
        if !self.probe_results.verdict().healthy {
            self.state.send_replace(WorkerState::Settled);
        }
    }

    async fn await_recovery(&mut self) {
        while !self.probe_results.verdict().healthy {
            self.probe_results.changed().await;
            self.settle_if_dead();
        }
    }

    async fn beat_while_healthy(&mut self, last: &mut Option<HeartbeatLoop>) {
        // A target reports no health: it only beats.
        let (_words, heard) = watch::channel(HealthReport::default());
        let heartbeat_loop = last.insert(self.heartbeat_loop(heard));
        let mut progress = heartbeat_loop.progress();
        let unhealthy = async {
            while self.probe_results.verdict().healthy {
                tokio::select! {
                    () = self.probe_results.changed() => {}
                    () = next(&mut progress) => self.advance(&progress),
                }
            }
        };
        let never = CancellationToken::new();
        tokio::select! {
            // Nothing cancels this token. The loop is dropped instead, and leaves its Lease as it is.
            () = heartbeat_loop.beat_until(&never) => {}
            () = unhealthy => {}
        }
    }

    fn heartbeat_loop(&self, heard: watch::Receiver<HealthReport>) -> HeartbeatLoop {
        let InstancePlan { identity, options, .. } = self.instance.clone();
        let report = self.metrics.counting(self.console.report());
        HeartbeatLoop::new(self.connection.clone(), identity, options, heard, report)
    }

    /// Records the progress; the stage never goes back.
    fn advance(&self, progress: &watch::Receiver<Progress>) {
        let now = match &progress.borrow().reported {
            None => WorkerState::Starting,
            Some(word) if word.health == Health::Draining => WorkerState::Drained,
            Some(_) => WorkerState::Settled,
        };
        self.state.send_if_modified(|state| {
            let further = now > *state;
            *state = now.max(*state);
            further
        });
        self.standing.send_if_modified(|standing| {
            let seen = &progress.borrow().publication;
            let news = standing != seen;
            standing.clone_from(seen);
            news
        });
    }
}

const DRAINING: HealthReport =
    HealthReport { health: Health::Draining, note: None, provisional: false };

fn word(verdict: Verdict, started_here: bool) -> HealthReport {
    let health = if verdict.healthy { Health::Passing } else { Health::Failing };
    // A new agent does not know yet what has happened in a process that it has not started.
    HealthReport { health, note: verdict.message, provisional: !verdict.decided && !started_here }
}

/// Sends a word, unless it is the current one: an unchanged word causes no beat.
fn print(words: &watch::Sender<HealthReport>, word: HealthReport) {
    words.send_if_modified(|said| {
        let news = *said != word;
        *said = word;
        news
    });
}

async fn next(progress: &mut watch::Receiver<Progress>) {
    if progress.changed().await.is_err() {
        pending().await
    }
}

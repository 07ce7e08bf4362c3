//! One instance that an agent beats for. Its beats carry the results of its probes.

use anyhow::Result;
use beatkeeper_api::heartbeat::Health;
use beatkeeper_client::{
    Connection,
    heartbeat_loop::{HeartbeatLoop, Progress},
    lease::HealthReport,
    publication::Publication,
};
use futures::future::{pending, select_all};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    crew::Life as Task,
    plan::Member,
    probe::{self, Probe, Series, Verdict},
    probing,
    tell::Teller,
};

/// What happens to an instance if its probes fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The instance reports that it fails: a process beside the agent is alive even if its probes fail.
    Tell {
        /// Whether the agent has started the process, so that an earlier report does not apply to it.
        started_here: bool,
    },
    /// The instance stops beating until the probes succeed again: only the probes know whether a remote
    /// target is alive.
    FallSilent,
}

impl OnFailure {
    /// The same for an instance that continues after a panic: its earlier report still applies.
    pub fn again(self) -> Self {
        match self {
            Self::Tell { .. } => Self::Tell { started_here: false },
            Self::FallSilent => Self::FallSilent,
        }
    }
}

/// The progress of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No beat was accepted yet.
    Starting,
    /// A beat was accepted since the start, or the probes have found the instance dead.
    Settled,
    /// The beat that reports the drain was accepted.
    Drained,
}

/// The requests to drain, leave or stop.
#[derive(Debug, Clone, Default)]
pub struct Cues {
    /// The instance drains from now on, and keeps beating.
    pub drain: CancellationToken,
    /// The instance ends, and leaves its Lease unchanged for the next process.
    pub leave: CancellationToken,
    /// The instance stops and deregisters.
    pub stop: CancellationToken,
}

/// The task that beats for a remote target with its former settings.
pub struct Former {
    /// The requests that end the task.
    pub cues: Cues,
    /// The task itself.
    pub life: Task,
}

impl Former {
    /// Ends the task, and leaves the Lease.
    pub async fn leave(self) {
        self.cues.leave.cancel();
        let _ = self.life.await;
    }

    /// Ends the task, and deregisters.
    ///
    /// # Errors
    /// Deregistering failed.
    pub async fn stop(self) -> Result<()> {
        self.cues.stop.cancel();
        self.life.await?
    }
}

/// Where an instance writes its progress.
#[derive(Clone)]
pub struct Page {
    /// Read by the code that started the agent.
    pub stage: watch::Sender<Stage>,
    /// How the operator treats the instance; `None` while that is unknown.
    pub standing: watch::Sender<Option<Publication>>,
}

impl Member {
    /// Beats until it is stopped; then deregisters. If there is a former task, that task keeps beating until
    /// enough probes have a result: until then its word is the only one known.
    ///
    /// # Errors
    /// Deregistering failed.
    pub async fn run(
        self,
        on_failure: OnFailure,
        connection: Connection,
        cues: Cues,
        page: Page,
        teller: Teller,
        former: Option<Former>,
    ) -> Result<()> {
        let vitals = Vitals::probe(&self.probes);
        let Page { stage, standing } = page;
        let life = Life { member: self, connection, cues, stage, standing, teller, vitals };
        match on_failure {
            OnFailure::Tell { started_here } => life.tell(started_here).await,
            OnFailure::FallSilent => life.fall_silent(former).await,
        }
    }
}

struct Life {
    member: Member,
    connection: Connection,
    cues: Cues,
    stage: watch::Sender<Stage>,
    standing: watch::Sender<Option<Publication>>,
    teller: Teller,
    vitals: Vitals,
}

impl Life {
    async fn tell(mut self, started_here: bool) -> Result<()> {
        let word = |verdict: Verdict| word(verdict, started_here);
        let (words, heard) = watch::channel(word(self.vitals.verdict()));
        let heart = self.heart(heard);
        let mut progress = heart.progress();
        let Cues { stop, leave, .. } = self.cues.clone();
        let speaking = async {
            loop {
                tokio::select! {
                    () = self.cues.drain.cancelled() => break,
                    () = self.vitals.changed() => say(&words, word(self.vitals.verdict())),
                    () = next(&mut progress) => self.advance(&progress),
                }
            }
            say(&words, DRAINING);
            loop {
                next(&mut progress).await;
                self.advance(&progress);
            }
        };
        tokio::select! {
            biased;
            () = leave.cancelled() => Ok(()),
            ended = heart.run(stop) => Ok(ended?),
            () = speaking => Ok(()),
        }
    }

    async fn fall_silent(mut self, mut former: Option<Former>) -> Result<()> {
        let Cues { stop, leave, .. } = self.cues.clone();
        // The heart that beat last; it deregisters at the end.
        let mut last: Option<HeartbeatLoop> = None;
        let for_ever = async {
            if former.is_some() {
                self.await_decision().await;
            }
            if let Some(former) = former.take() {
                former.leave().await;
            }
            loop {
                self.await_recovery().await;
                self.beat_while_healthy(&mut last).await;
                self.stage.send_replace(Stage::Settled);
                self.standing.send_replace(None);
                let why = self.vitals.verdict().message.unwrap_or_default();
                self.teller.say(&format!("silent from here on: {why}"));
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
        if let Some(former) = former {
            return former.stop().await;
        }
        match last {
            Some(mut heart) => Ok(heart.end().await?),
            None => Ok(()),
        }
    }

    /// Waits until enough probes have a result.
    async fn await_decision(&mut self) {
        while !matches!(self.vitals.verdict(), Verdict { decided: true, .. }) {
            self.vitals.changed().await;
        }
        self.settle_if_dead();
    }

    /// Marks the instance as settled if the probes have found it dead. A verdict that has changed always
    /// comes from a probe. A verdict that finds the instance alive is followed by a beat.
    fn settle_if_dead(&self) {
        if !self.vitals.verdict().healthy {
            self.stage.send_replace(Stage::Settled);
        }
    }

    async fn await_recovery(&mut self) {
        while !self.vitals.verdict().healthy {
            self.vitals.changed().await;
            self.settle_if_dead();
        }
    }

    async fn beat_while_healthy(&mut self, last: &mut Option<HeartbeatLoop>) {
        // A target reports no health: it only beats.
        let (_words, heard) = watch::channel(HealthReport::default());
        let heart = last.insert(self.heart(heard));
        let mut progress = heart.progress();
        let unhealthy = async {
            while self.vitals.verdict().healthy {
                tokio::select! {
                    () = self.vitals.changed() => {}
                    () = next(&mut progress) => self.advance(&progress),
                }
            }
        };
        let never = CancellationToken::new();
        tokio::select! {
            // Nothing cancels this token. The heart is dropped instead, and leaves its Lease as it is.
            () = heart.beat_until(&never) => {}
            () = unhealthy => {}
        }
    }

    fn heart(&self, heard: watch::Receiver<HealthReport>) -> HeartbeatLoop {
        let Member { identity, options, .. } = self.member.clone();
        HeartbeatLoop::new(self.connection.clone(), identity, options, heard, self.teller.report())
    }

    /// Records the progress; the stage never goes back.
    fn advance(&self, progress: &watch::Receiver<Progress>) {
        let now = match &progress.borrow().reported {
            None => Stage::Starting,
            Some(word) if word.health == Health::Draining => Stage::Drained,
            Some(_) => Stage::Settled,
        };
        self.stage.send_if_modified(|stage| {
            let further = now > *stage;
            *stage = now.max(*stage);
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
fn say(words: &watch::Sender<HealthReport>, word: HealthReport) {
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

/// The combined result of all probes of an instance.
struct Vitals {
    verdicts: Vec<watch::Receiver<Verdict>>,
    _probing: Vec<AbortOnDropHandle<()>>,
}

impl Vitals {
    /// Begins to probe.
    fn probe(probes: &[Probe]) -> Self {
        let (verdicts, probing) = probes.iter().cloned().map(begin).unzip();
        Self { verdicts, _probing: probing }
    }

    /// Returns the combined verdict: healthy if each probe is, with the warnings; otherwise unhealthy, with
    /// the reasons.
    fn verdict(&self) -> Verdict {
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

    async fn changed(&mut self) {
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

fn begin(probe: Probe) -> (watch::Receiver<Verdict>, AbortOnDropHandle<()>) {
    let (sender, receiver) = watch::channel(Series::new(&probe).verdict().clone());
    let probing = async move { probe::run(&probe, &sender, &CancellationToken::new()).await };
    (receiver, AbortOnDropHandle::new(probing::handle().spawn(probing)))
}

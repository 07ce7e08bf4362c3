//! One instance that an agent beats for: what its probes say goes out with its beats.

use anyhow::Result;
use beatkeeper_api::heartbeat::Health;
use beatkeeper_client::{
    Connection,
    heart::{Heart, Progress},
    lease::Word,
    standing::Standing,
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

/// What becomes of an instance whose probes fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// It says so: what lives beside the agent is alive all the same.
    Tell {
        /// Whether the agent has started it, so that nothing that was said before holds for it.
        started_here: bool,
    },
    /// It falls silent, and beats again when they succeed: nobody but the probes knows whether a remote
    /// target is alive.
    FallSilent,
}

impl OnFailure {
    /// The same for an instance that goes on after a panic: what it has said before holds.
    pub fn again(self) -> Self {
        match self {
            Self::Tell { .. } => Self::Tell { started_here: false },
            Self::FallSilent => Self::FallSilent,
        }
    }
}

/// How far an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing was accepted yet.
    Starting,
    /// A beat was accepted since the start, or its probes have found it dead.
    Settled,
    /// It was accepted that it drains.
    Drained,
}

/// When what comes before the end is to be done.
#[derive(Debug, Clone, Default)]
pub struct Cues {
    /// It drains from here on, and beats on.
    pub drain: CancellationToken,
    /// It ends, and leaves its Lease as it is for the next process.
    pub leave: CancellationToken,
    /// It stops.
    pub stop: CancellationToken,
}

/// What beats for a remote target by the settings that it had.
pub struct Former {
    /// By which it ends.
    pub cues: Cues,
    /// Its task.
    pub life: Task,
}

impl Former {
    /// Has it end, and leave its Lease.
    pub async fn leave(self) {
        self.cues.leave.cancel();
        let _ = self.life.await;
    }

    /// Has it deregister.
    ///
    /// # Errors
    /// Deregistering failed.
    pub async fn stop(self) -> Result<()> {
        self.cues.stop.cancel();
        self.life.await?
    }
}

/// Where an instance writes how far it is.
#[derive(Clone)]
pub struct Page {
    /// Read by the code that started the agent.
    pub stage: watch::Sender<Stage>,
    /// What the operator makes of it; none while that is not known.
    pub standing: watch::Sender<Option<Standing>>,
}

impl Member {
    /// Beats until it is stopped; then deregisters. Where there is a former one, that beats on until enough probes have
    /// a result: until then nothing is known but what it says.
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
    standing: watch::Sender<Option<Standing>>,
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
        // What has beaten last, for its end.
        let mut last: Option<Heart> = None;
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
            // The target does not end with us.
            () = leave.cancelled() => return Ok(()),
            // It is not to be beaten for any more.
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

    /// Until enough probes have a result.
    async fn await_decision(&mut self) {
        while !matches!(self.vitals.verdict(), Verdict { decided: true, .. }) {
            self.vitals.changed().await;
        }
        self.settle_if_dead();
    }

    /// A verdict that has changed comes from a probe. One that finds it alive is followed by a beat.
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

    async fn beat_while_healthy(&mut self, last: &mut Option<Heart>) {
        // It has nothing to say but that it is there.
        let (_words, heard) = watch::channel(Word::default());
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
            // Nothing stops it. It is dropped, and leaves its Lease as it is.
            () = heart.beat_until(&never) => {}
            () = unhealthy => {}
        }
    }

    fn heart(&self, heard: watch::Receiver<Word>) -> Heart {
        let Member { identity, wishes, .. } = self.member.clone();
        Heart::new(self.connection.clone(), identity, wishes, heard, self.teller.report())
    }

    /// Notes how far it is; never back.
    fn advance(&self, progress: &watch::Receiver<Progress>) {
        let now = match &progress.borrow().told {
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
            let seen = &progress.borrow().standing;
            let news = standing != seen;
            standing.clone_from(seen);
            news
        });
    }
}

const DRAINING: Word = Word { health: Health::Draining, note: None, provisional: false };

fn word(verdict: Verdict, started_here: bool) -> Word {
    let health = if verdict.healthy { Health::Passing } else { Health::Failing };
    // A new agent knows nothing yet of what has gone on beside it.
    Word { health, note: verdict.message, provisional: !verdict.decided && !started_here }
}

/// A word that was said already makes for no beat.
fn say(words: &watch::Sender<Word>, word: Word) {
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

/// What all probes of an instance say together.
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

    /// Healthy if each of them is, and then with what is to be looked at; else with the reasons.
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
            // Never, since a probe that panics has failed.
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

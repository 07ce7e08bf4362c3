//! The engine: it claims the Lease, renews it, and gives it back.

mod claim;
mod passed;
mod plan;
mod reread;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::awake::{Awake, Lost, earlier};
use crate::clock::RenewTimes;
use crate::event::Event;
use crate::failure::{Failure, Operation};
use crate::lease::{Held, Identity, Owner, Word};
use crate::others::Others;
use crate::panics::caught;
use crate::requests::{Connection, Requests};
use crate::rival::{Vigil, Written, incarnation};
use crate::schedule::{Pace, Room};
use crate::standing::Standing;
use passed::Passed;
use plan::Plan;
use reread::read_pace;

/// The timeout of a request that is sent before the ttl is known.
const TIMEOUT_UNKNOWN: Duration = Duration::from_secs(10);
/// How long a request that is under way may take to finish after we are stopped. If the request were dropped,
/// a Lease that is just being created could remain without our knowledge.
const LET_FINISH: Duration = Duration::from_millis(500);
/// Longer than any process lives.
const NEVER: Duration = Duration::from_secs(86_400 * 365);
/// The shortest pause between two looks of a process that stands by.
const RETRY_LEAST: Duration = Duration::from_millis(100);

/// The smallest difference between our wall clock and the API server's that is reported, in seconds.
const CLOCK_OFF: i64 = 60;

/// A function that receives the events. The heart calls it directly, so it must not block.
pub type Report = Arc<dyn Fn(&Event) + Send + Sync>;

/// How often to beat, where this differs from the registration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// An interval that is shorter than the registration's. A longer one is reported and not followed. Zero:
    /// one beat at the start and none after it, so another process has to beat.
    pub interval: Option<Duration>,
    /// The ttl that the caller relies on. A registration with a shorter ttl is reported. This has no other
    /// effect.
    pub ttl: Option<Duration>,
    /// Other processes are meant to beat under the same name with the same claim, so this is not reported as
    /// a name conflict.
    pub shared: bool,
}

impl Wishes {
    fn renews(self) -> bool {
        self.interval != Some(Duration::ZERO)
    }

    /// The warnings to report about a pace.
    fn warnings(self, pace: Pace) -> Vec<Event> {
        let slow = self.interval.filter(|wanted| *wanted > pace.interval());
        let patient = self.ttl.filter(|wanted| *wanted > pace.ttl());
        let slow = slow.map(|wanted| Event::TooSlow { wanted, pace });
        let patient = patient.map(|wanted| Event::TooPatient { wanted, pace });
        slow.into_iter().chain(patient).collect()
    }
}

/// The progress of a heart, for code that waits for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The word that was accepted last; `None` before the first beat.
    pub told: Option<Word>,
    /// Why the last try failed; `None` once a try has succeeded since.
    pub failure: Option<Failure>,
    /// How the operator treats the instance, according to the status of the registration.
    pub standing: Option<Standing>,
}

/// One beating instance.
pub struct Heart {
    requests: Arc<Requests>,
    identity: Identity,
    wishes: Wishes,
    words: watch::Receiver<Word>,
    progress: watch::Sender<Progress>,
    report: Report,
    times: RenewTimes,
    pace: Option<Pace>,
    owner: Option<Owner>,
    lease: Claim,
    /// Identifies this run of the process.
    incarnation: String,
    written: Written,
    /// Set if another process beats under our claim without a claim of its own: the number of beats until we
    /// check whether it still does. `None`: only this process beats.
    beats_beside: Option<u32>,
    /// The note of a rival in the Lease, and whether it still changes.
    rival: Vigil,
    /// The Lease of another owner under our name, while we wait to see whether it still receives beats.
    occupied: Option<Vigil>,
    /// The word that the Lease has held since it became ours.
    told: Word,
    /// The parts of that word that are not ours to set: a person drains the instance, or has left a note.
    others: Others,
    /// The health in the Lease was written by an earlier process. It holds until a check has a result.
    kept: bool,
    last_success: Option<Instant>,
    lease_duration_sent: i32,
    awake: Awake,
}

/// What can happen while no beat is due.
enum News {
    Stop,
    Word,
    Pace(Pace),
    Lost(Lost),
}

type Rereader = (watch::Receiver<Pace>, AbortOnDropHandle<()>);

/// The state of our claim to the Lease.
enum Claim {
    /// Nothing has been written yet.
    None,
    /// Something was written, and it is unknown whether it arrived.
    Unsure,
    /// The Lease is ours.
    Held(Held),
    /// The Lease was ours, and another process has claimed it since.
    Passed(Box<Passed>),
}

impl Heart {
    /// Makes a heart that has not begun to beat. The value in `words` goes out with the next beat. A change
    /// of it causes a beat at once.
    pub fn new(
        connection: Connection,
        identity: Identity,
        wishes: Wishes,
        words: watch::Receiver<Word>,
        report: Report,
    ) -> Self {
        Self {
            requests: Arc::new(Requests::new(connection, &identity)),
            identity,
            wishes,
            words,
            progress: watch::Sender::default(),
            report,
            times: RenewTimes::default(),
            pace: None,
            owner: None,
            lease: Claim::None,
            incarnation: incarnation(),
            written: Written::default(),
            beats_beside: None,
            rival: Vigil::begin(None, Instant::now()),
            occupied: None,
            told: Word::default(),
            others: Others::default(),
            kept: false,
            last_success: None,
            lease_duration_sent: 0,
            awake: Awake::default(),
        }
    }

    /// Returns a receiver that follows the progress of the heart.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Beats until `stop` is cancelled, whatever fails; then deregisters.
    ///
    /// # Errors
    /// Only if deregistering failed. The Lease then stays, and the instance is pruned when its ttl has
    /// passed.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Failure> {
        self.beat_until(&stop).await;
        self.end().await
    }

    /// Deregisters. It may be called at any moment, whether the heart has been beating or not.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn end(&mut self) -> Result<(), Failure> {
        // If several agents beat for one target, the target stays registered when one of the agents stops.
        if self.wishes.shared && self.beats_beside.is_some() {
            let lease = self.requests.lease_object();
            (self.report)(&Event::LeftToAnother { lease });
            return Ok(());
        }
        let last_words = self.deregister().await?;
        (self.report)(&last_words);
        Ok(())
    }

    /// Beats until `stop` is cancelled or this future is dropped. The Lease stays as it is then.
    pub async fn beat_until(&mut self, stop: &CancellationToken) {
        let mut plan = Plan::begin();
        let mut rereader: Option<Rereader> = None;
        loop {
            let sent = Instant::now();
            let Some(result) = unless_stopped(stop, caught(self.step())).await else { return };
            let result = result.unwrap_or_else(|panic| {
                // It is unknown how far the step came, so the next step reads the Lease and claims it anew.
                self.lease = Claim::Unsure;
                Err(Failure::panicked(Operation::Beat, &self.requests.lease_object(), &panic))
            });
            match result {
                Ok(pace) => {
                    self.plan_next(&mut plan, pace, sent);
                    if self.wishes.renews() && rereader.is_none() {
                        rereader = Some(self.reread(pace));
                    }
                }
                Err(failure) => self.plan_retry(&mut plan, failure),
            }
            while let Some(news) = self.news(plan.due, rereader.as_mut(), stop).await {
                match news {
                    News::Stop => return,
                    News::Word if !plan.failing && self.has_news() => plan.due = Instant::now(),
                    // The news goes out with the next try.
                    News::Word => {}
                    News::Pace(pace) => {
                        self.pace = Some(pace);
                        if !plan.failing {
                            plan.due = plan.due.min(plan.anchor + pace.pause(rand::random()));
                        }
                    }
                    News::Lost(lost) => self.make_up_for(&mut plan, lost),
                }
            }
        }
    }

    /// Plans the next beat after a beat was accepted or seen.
    fn plan_next(&mut self, plan: &mut Plan, pace: Pace, sent: Instant) {
        let late = sent - plan.due;
        let regained = plan.failing || plan.woken || self.last_success.is_none();
        self.succeeded(pace, plan.failing, late);
        (plan.failing, plan.woken) = (false, false);
        plan.backoff.reset();
        // The pause counts from when the beat was due, so that the duration of requests does not add up.
        // After a late beat the count starts anew: missed beats are not made up for.
        plan.anchor = if late > pace.interval() / 10 { sent } else { plan.due };
        let roll = rand::random();
        plan.due = if regained {
            // The pause counts from the answer: an API server that is just starting answers many clients at
            // one moment.
            Instant::now() + pace.phase(roll)
        } else {
            plan.anchor + pace.pause(roll)
        };
        if let Claim::Passed(passed) = &self.lease
            && let Some(at) = passed.takes_back_at(&pace)
        {
            plan.due = plan.due.min(at.max(sent + RETRY_LEAST));
        }
        if !self.wishes.renews() {
            plan.due = plan.anchor + NEVER;
        }
    }

    fn plan_retry(&mut self, plan: &mut Plan, failure: Failure) {
        plan.failing = self.last_success.is_some();
        let retry_in = plan.backoff.pause(self.room(), failure.retry_after, rand::random());
        plan.due = Instant::now() + retry_in;
        self.progress.send_modify(|now| now.failure = Some(failure.clone()));
        (self.report)(&Event::Failed { failure, retry_in });
    }

    /// Accounts for time that no timer has counted.
    fn make_up_for(&mut self, plan: &mut Plan, lost: Lost) {
        self.last_success = self.last_success.map(|at| earlier(at, lost.suspended));
        plan.make_up_for(lost, self.wishes.renews(), Instant::now());
    }

    /// How long the next try may wait.
    fn room(&self) -> Room {
        let silent = self.last_success.map(|last| last.elapsed());
        self.pace.map_or(Room::UNKNOWN, |pace| Room::between_beats(&pace, silent))
    }

    /// What happens before the next beat is due; `None` when the beat is due.
    async fn news(
        &mut self,
        due: Instant,
        rereader: Option<&mut Rereader>,
        stop: &CancellationToken,
    ) -> Option<News> {
        let changed = async {
            match rereader {
                Some((paces, _)) => match paces.changed().await {
                    Ok(()) => *paces.borrow_and_update(),
                    Err(_) => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        let word = async {
            // If the sender of words is gone, no further word can come.
            if self.words.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Some(News::Stop),
            () = word => Some(News::Word),
            pace = changed => Some(News::Pace(pace)),
            lost = self.awake.sleep_until(due) => lost.map(News::Lost),
        }
    }

    /// Whether the Lease has to be changed, because it states another health or note than it should. What an
    /// earlier process wrote holds until a check has a result.
    fn has_news(&self) -> bool {
        let word = self.words.borrow();
        let holds = self.kept && word.provisional;
        !holds && !word.says_what(&self.told)
    }

    /// Reports what a success means after the failure or silence before it.
    fn succeeded(&mut self, pace: Pace, failing: bool, late: Duration) {
        let now = Instant::now();
        match self.last_success.replace(now).map(|last| now - last) {
            None => {
                if let Some(ahead) = self.requests.clock_ahead().filter(|off| off.abs() > CLOCK_OFF)
                {
                    (self.report)(&Event::ClockOff { ahead });
                }
            }
            Some(silent) => {
                if silent > pace.ttl() && self.wishes.renews() {
                    (self.report)(&Event::WasOut { silent, ttl: pace.ttl() });
                } else if failing {
                    (self.report)(&Event::Recovered { after: silent });
                }
                if late > pace.punctuality() {
                    (self.report)(&Event::Late { by: late });
                }
            }
        }
        let told = Some(self.told.clone());
        self.progress.send_modify(|now| {
            now.told = told;
            now.failure = None;
        });
    }
}

/// Returns the outcome of a step, or `None` if we are stopped and the step does not finish soon after.
async fn unless_stopped<T>(stop: &CancellationToken, step: impl Future<Output = T>) -> Option<T> {
    let stopped = async {
        stop.cancelled().await;
        sleep(LET_FINISH).await;
    };
    tokio::select! {
        biased;
        outcome = step => Some(outcome),
        () = stopped => None,
    }
}

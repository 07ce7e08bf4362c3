//! The engine: claims the Lease, keeps it renewed, gives it back.

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

/// A request that was sent before the ttl was known.
const TIMEOUT_UNKNOWN: Duration = Duration::from_secs(10);
/// A request that is under way when we are stopped may come to its end for so long. Dropped, a
/// Lease that is just being created would stay behind without our knowing.
const LET_FINISH: Duration = Duration::from_millis(500);
/// Further away than any process lives.
const NEVER: Duration = Duration::from_secs(86_400 * 365);
/// A process that stands by never looks more often than this.
const RETRY_LEAST: Duration = Duration::from_millis(100);

/// A wall clock that is further off than this is worth a word, in seconds.
const CLOCK_OFF: i64 = 60;

/// Hears what happens. Called from the heart itself: it must not block.
pub type Report = Arc<dyn Fn(&Event) + Send + Sync>;

/// How often to beat, where that is not what the registration says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// A faster pace than the registration's; a slower one is reported and not followed. Zero: one beat
    /// at the start and none after it, so that somebody else has to beat.
    pub interval: Option<Duration>,
    /// The ttl that is counted on: reported when the registration's is shorter. It has no other effect.
    pub ttl: Option<Duration>,
    /// Other processes are meant to beat under the same name, with the same claim: that is no quarrel to tell
    /// people of.
    pub shared: bool,
}

impl Wishes {
    fn renews(self) -> bool {
        self.interval != Some(Duration::ZERO)
    }

    /// What is to be said about a pace.
    fn warnings(self, pace: Pace) -> Vec<Event> {
        let slow = self.interval.filter(|wanted| *wanted > pace.interval());
        let patient = self.ttl.filter(|wanted| *wanted > pace.ttl());
        let slow = slow.map(|wanted| Event::TooSlow { wanted, pace });
        let patient = patient.map(|wanted| Event::TooPatient { wanted, pace });
        slow.into_iter().chain(patient).collect()
    }
}

/// How far a heart is, for those who wait for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// What was accepted last; none before the first beat.
    pub told: Option<Word>,
    /// Why the last try failed, while none has succeeded since.
    pub failure: Option<Failure>,
    /// What the operator makes of the instance, as far as the registration's status has shown it.
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
    /// Another beats for our claim without one of its own: so many beats are left before that is asked again.
    /// None: only we do.
    beats_beside: Option<u32>,
    /// The note of a rival that was seen in the Lease, while it changes.
    rival: Vigil,
    /// The Lease of another owner that has our name, while we wait to see whether it still beats.
    occupied: Option<Vigil>,
    /// In the Lease, since it is ours.
    told: Word,
    /// What of that is not ours to say: a person drains it, or has left a note.
    others: Others,
    /// The health in the Lease was written by an earlier process. It holds until a check has a result.
    kept: bool,
    last_success: Option<Instant>,
    lease_duration_sent: i32,
    awake: Awake,
}

/// What may happen while no beat is due.
enum News {
    Stop,
    Word,
    Pace(Pace),
    Lost(Lost),
}

type Rereader = (watch::Receiver<Pace>, AbortOnDropHandle<()>);

/// How far we are with the Lease.
enum Claim {
    /// Nothing was written yet.
    None,
    /// Something was written, and whether it arrived is unknown.
    Unsure,
    /// Ours.
    Held(Held),
    /// Another process has claimed it since it was ours.
    Passed(Box<Passed>),
}

impl Heart {
    /// A heart that has not begun to beat. What `words` holds goes out with the next beat, and a change
    /// of it makes for one at once.
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

    /// How far it is, from now on.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Beats until `stop` is cancelled, whatever happens; then deregisters.
    ///
    /// # Errors
    /// Only when deregistering failed. The Lease stays then, and the instance is pruned when its ttl
    /// is over.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Failure> {
        self.beat_until(&stop).await;
        self.end().await
    }

    /// Deregisters. It may have been beating, or have stopped that at any moment.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn end(&mut self) -> Result<(), Failure> {
        // Where several agents beat for one target, it lives on when one of them is told to let go of it.
        if self.wishes.shared && self.beats_beside.is_some() {
            let lease = self.requests.lease_object();
            (self.report)(&Event::LeftToAnother { lease });
            return Ok(());
        }
        let last_words = self.deregister().await?;
        (self.report)(&last_words);
        Ok(())
    }

    /// Beats until `stop` is cancelled, or until this is dropped, and leaves the Lease as it is then.
    pub async fn beat_until(&mut self, stop: &CancellationToken) {
        let mut plan = Plan::begin();
        let mut rereader: Option<Rereader> = None;
        loop {
            let sent = Instant::now();
            let Some(result) = unless_stopped(stop, caught(self.step())).await else { return };
            let result = result.unwrap_or_else(|panic| {
                // How far it came is not known: the Lease is looked at, and claimed anew.
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
                    // It goes out with the next try.
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

    /// A beat was accepted, or seen.
    fn plan_next(&mut self, plan: &mut Plan, pace: Pace, sent: Instant) {
        let late = sent - plan.due;
        let regained = plan.failing || plan.woken || self.last_success.is_none();
        self.succeeded(pace, plan.failing, late);
        (plan.failing, plan.woken) = (false, false);
        plan.backoff.reset();
        // Counted from when it was due, the time that requests take does not add up. A beat that came late
        // starts a new count: those that were missed are not made up for.
        plan.anchor = if late > pace.interval() / 10 { sent } else { plan.due };
        let roll = rand::random();
        plan.due = if regained {
            // From the answer on: an API server that starts answers many at one moment.
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

    /// Time has passed that no timer has counted.
    fn make_up_for(&mut self, plan: &mut Plan, lost: Lost) {
        self.last_success = self.last_success.map(|at| earlier(at, lost.suspended));
        plan.make_up_for(lost, self.wishes.renews(), Instant::now());
    }

    /// How long another try may wait.
    fn room(&self) -> Room {
        let silent = self.last_success.map(|last| last.elapsed());
        self.pace.map_or(Room::UNKNOWN, |pace| Room::between_beats(&pace, silent))
    }

    /// What happens before the next beat is due; none when that is now.
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
            // Whoever could say another word may be gone: then there is none.
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

    /// Whether the Lease has to be changed, because it says something else about the instance than it should. What an
    /// earlier process wrote holds until more is known.
    fn has_news(&self) -> bool {
        let word = self.words.borrow();
        let holds = self.kept && word.provisional;
        !holds && !word.says_what(&self.told)
    }

    /// Tells what a success means after what was before it.
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

/// The outcome, unless we are stopped and it does not come soon after.
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

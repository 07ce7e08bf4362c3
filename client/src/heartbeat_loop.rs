//! The heartbeat loop of one instance: it claims the Lease, renews it, and deletes it at the end.

mod carry;
mod carrying;
mod claim;
mod deregister;
mod follow;
mod options;
mod other_holder;
mod plan;
mod reread;
mod state;
#[cfg(test)]
mod tests;
mod way;

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    event::Event,
    failure::{Failure, Operation},
    panics::catch_panic,
    schedule::{Pace, RetryLimits},
    suspend::{LostTime, earlier},
};
pub use options::{BeatOptions, Progress, Report};
use plan::Plan;
use reread::{Rereader, Terms};
use state::ClaimState;
pub use state::HeartbeatLoop;

/// How long a request that is under way may take to finish after we are stopped. If the request were dropped,
/// a Lease that is just being created could remain without our knowledge.
const LET_FINISH: Duration = Duration::from_millis(500);
/// Longer than any process lives.
const NEVER: Duration = Duration::from_secs(86_400 * 365);
/// The shortest pause between two looks of a process that stands by.
const RETRY_LEAST: Duration = Duration::from_millis(100);
/// The smallest difference between our wall clock and the API server's that is reported, in seconds.
const CLOCK_OFF: i64 = 60;

/// What can happen while no beat is due.
enum LoopEvent {
    Stop,
    HealthReport,
    Terms(Terms),
    LostTime(LostTime),
}

impl HeartbeatLoop {
    /// Beats until `stop` is cancelled, whatever fails; then deregisters.
    ///
    /// # Errors
    /// Only if deregistering failed. The Lease then stays, and the instance is pruned when its ttl has
    /// passed.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Failure> {
        self.beat_until(&stop).await;
        self.end().await
    }

    /// Deregisters. It may be called at any moment, whether the loop has been beating or not.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn end(&mut self) -> Result<(), Failure> {
        // If several agents beat for one target, the target stays registered when one of the agents stops.
        if self.options.shared && self.recheck_after.is_some() {
            let lease = self.requests.lease_object();
            (self.report)(&Event::LeaseLeft { lease });
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
            if !plan.failing {
                self.beat_due = plan.due;
            }
            let Some(result) = unless_stopped(stop, catch_panic(self.step())).await else { return };
            let result = result.unwrap_or_else(|panic| {
                // It is unknown how far the step came, so the next step reads the Lease and claims it anew.
                self.lease = ClaimState::Unknown;
                Err(Failure::panicked(Operation::Beat, &self.requests.lease_object(), &panic))
            });
            match result {
                Ok(pace) => {
                    self.plan_next(&mut plan, pace, sent);
                    if self.options.renews() && rereader.is_none() {
                        rereader = Some(self.reread(pace));
                    }
                }
                Err(failure) => self.plan_retry(&mut plan, failure),
            }
            while let Some(news) = self.news(plan.due, rereader.as_mut(), stop).await {
                match news {
                    LoopEvent::Stop => return,
                    // While only gateways do not answer, the health goes to the Lease at once.
                    LoopEvent::HealthReport
                        if (!plan.failing || self.carrying.is_carried())
                            && self.health_differs() =>
                    {
                        plan.due = Instant::now()
                    }
                    // The news goes out with the next try.
                    LoopEvent::HealthReport => {}
                    LoopEvent::Terms(terms) => self.follow_terms(&mut plan, terms),
                    LoopEvent::LostTime(lost) => self.account_for(&mut plan, lost),
                }
            }
        }
    }

    /// Follows what the registration asks for from now on.
    fn follow_terms(&mut self, plan: &mut Plan, Terms { pace, carrier }: Terms) {
        self.follow_pace(pace);
        if !plan.failing {
            plan.due = plan.due.min(plan.anchor + pace.pause(rand::random()));
        }
        // Where no gateway answers, the Lease is renewed at once.
        if self.follow_carrier(carrier) && plan.failing && self.carrying.is_carried() {
            plan.due = Instant::now();
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
        if let ClaimState::TakenOver(holder) = &self.lease
            && let Some(at) = holder.takes_back_at(&pace)
        {
            plan.due = plan.due.min(at.max(sent + RETRY_LEAST));
        }
        if !self.options.renews() {
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
    fn account_for(&mut self, plan: &mut Plan, lost: LostTime) {
        self.last_success = self.last_success.map(|at| earlier(at, lost.suspended));
        plan.account_for(lost, self.options.renews(), Instant::now());
    }

    /// How long the next try may wait.
    fn room(&self) -> RetryLimits {
        let silent = self.last_success.map(|last| last.elapsed());
        self.pace.map_or(RetryLimits::UNKNOWN, |pace| RetryLimits::between_beats(&pace, silent))
    }

    /// What happens before the next beat is due; `None` when the beat is due.
    async fn news(
        &mut self,
        due: Instant,
        rereader: Option<&mut Rereader>,
        stop: &CancellationToken,
    ) -> Option<LoopEvent> {
        let changed = async {
            match rereader {
                Some((terms, _)) => match terms.changed().await {
                    Ok(()) => *terms.borrow_and_update(),
                    Err(_) => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        let health_report = async {
            // If the sender is gone, no further health report can come.
            if self.health.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Some(LoopEvent::Stop),
            () = health_report => Some(LoopEvent::HealthReport),
            terms = changed => Some(LoopEvent::Terms(terms)),
            lost = self.suspend_detector.sleep_until(due) => lost.map(LoopEvent::LostTime),
        }
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
                if silent > pace.ttl() && self.options.renews() {
                    (self.report)(&Event::SilentForTtl { silent, ttl: pace.ttl() });
                } else if failing {
                    (self.report)(&Event::Recovered { after: silent });
                }
                if late > pace.punctuality() {
                    (self.report)(&Event::Late { by: late });
                }
            }
        }
        let reported = Some(self.reported.clone());
        self.progress.send_modify(|now| {
            now.reported = reported;
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

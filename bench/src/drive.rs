//! A run in progress: the orders to the loader, the events, and the results.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::clock::Moment;
use crate::crew::Crew;
use crate::ledger::{Act, Done, Ledger};
use crate::records::{self, Lag, Missed, Record, Run};
use crate::words::{Event, Instance, Order};

/// How long after its deadline an instance is waited for.
pub const GENEROUS: Duration = Duration::from_secs(90);

/// The name in the results for instances that fell silent when a leader was ended.
pub const SILENT: &str = "takeover, silent";

/// A run in progress.
pub struct Drive {
    /// Identifies the run.
    pub run: Run,
    /// What the loader did and the watcher saw.
    pub ledger: Ledger,
    crew: Crew,
    out: PathBuf,
    began: Moment,
}

impl Drive {
    /// Makes a run from a crew that is ready, with a folder that the results are added to.
    pub fn new(run: Run, crew: Crew, ttl: Duration, out: &Path) -> Self {
        let ledger = Ledger::new(ttl);
        Self { run, ledger, crew, out: out.to_owned(), began: Moment::now() }
    }

    /// Prints what happens now.
    pub fn tell(&self, what: &str) {
        let Run { system, run, instances, .. } = &self.run;
        eprintln!("{} run {run}, {instances} instances: {what}", system.as_str());
    }

    /// Adds lines to the results.
    pub fn append<R: Record>(&self, lines: &[R]) -> Result<()> {
        records::append(&self.out, lines)
    }

    /// Gives the loader an order without an expected effect.
    pub async fn order(&mut self, order: &Order) -> Result<()> {
        self.crew.order(order).await
    }

    /// Orders instances to do something that the watcher is expected to see.
    pub async fn act(&mut self, act: Act, instances: Vec<Instance>) -> Result<()> {
        if instances.is_empty() {
            return Ok(());
        }
        self.ledger.expect(act, &instances);
        let order = match act {
            Act::Death => Order::Die(instances),
            Act::Leave => Order::Leave(instances),
            Act::Return => Order::Join { instances, over: Duration::ZERO },
        };
        self.crew.order(&order).await
    }

    /// Handles events for a span.
    pub async fn listen(&mut self, span: Duration) -> Result<()> {
        let by = Instant::now() + span;
        while let Some(event) = self.crew.next(by).await? {
            self.ledger.take_in(&event);
        }
        Ok(())
    }

    /// Waits until everything expected was seen. What is not seen within the time is recorded as missed.
    pub async fn settle(&mut self, within: Duration, scenario: &str) -> Result<()> {
        let by = Instant::now() + within;
        while !self.ledger.is_settled() {
            match self.crew.next(by).await? {
                Some(event) => self.ledger.take_in(&event),
                None => break,
            }
        }
        let missed = self.ledger.give_up().into_iter();
        let line =
            |(instance, act)| Missed::of(&self.run, name(scenario, act).to_owned(), instance);
        self.append(&missed.map(line).collect::<Vec<_>>())?;
        let done = self.ledger.take_done();
        self.note(&done, scenario)
    }

    /// Records instances with an act that the watcher has not seen.
    pub fn missed(&self, scenario: &str, instances: Vec<Instance>) -> Result<()> {
        let line = |instance| Missed::of(&self.run, scenario.to_owned(), instance);
        self.append(&instances.into_iter().map(line).collect::<Vec<_>>())
    }

    /// Writes the completed acts into the results. Some acts have a scenario name of their own.
    pub fn note(&self, done: &[Done], scenario: &str) -> Result<()> {
        let lines: Vec<Lag> =
            done.iter().map(|done| self.lag(done, name(scenario, done.act))).collect();
        self.append(&lines)
    }

    fn lag(&self, done: &Done, scenario: &str) -> Lag {
        let since = |moment: Moment| moment.seconds_after(self.began);
        let [sent, deadline, seen] = [done.sent, done.deadline, done.seen].map(since);
        let answer = done.answered.seconds_after(done.sent);
        let lag = done.lag();
        let scenario = scenario.to_owned();
        Lag::of(&self.run, scenario, done.instance, sent, answer, deadline, seen, lag)
    }

    /// Makes instances register over a span, and waits until all are seen.
    pub async fn bring_back(
        &mut self,
        who: &[Instance],
        over: Duration,
        scenario: &str,
    ) -> Result<()> {
        self.ledger.expect(Act::Return, who);
        self.order(&Order::Join { instances: who.to_vec(), over }).await?;
        self.settle(over + GENEROUS, scenario).await
    }

    /// Makes all instances of a new run register, at random phases as in practice. The rate is limited to what the
    /// control plane can do.
    pub async fn all_register(&mut self, interval: Duration) -> Result<()> {
        self.tell("all register");
        let all: Vec<Instance> = (0..self.run.instances).collect();
        let gently = Duration::from_millis(u64::from(self.run.instances) * 8);
        self.bring_back(&all, gently.max(interval), "first").await
    }

    /// Returns the instances of the run that are registered and of which nothing is expected.
    pub fn idle(&self) -> Vec<Instance> {
        (0..self.run.instances).filter(|&instance| self.ledger.is_idle(instance)).collect()
    }

    /// Returns the numbers of answered and failed renewals since the start.
    pub async fn count(&mut self) -> Result<(u64, u64)> {
        self.order(&Order::Count).await?;
        match self.answer(GENEROUS, |event| matches!(event, Event::Counted { .. })).await? {
            Event::Counted { renewals, failures } => Ok((renewals, failures)),
            other => bail!("the loader counts with {other:?}"),
        }
    }

    /// Waits for an event that the loader is expected to send.
    pub async fn answer(&mut self, within: Duration, is: impl Fn(&Event) -> bool) -> Result<Event> {
        let by = Instant::now() + within;
        while let Some(event) = self.crew.next(by).await? {
            if is(&event) {
                return Ok(event);
            }
            self.ledger.take_in(&event);
        }
        bail!("the loader has not answered within {within:?}")
    }
}

/// Returns the name of an act in a scenario for the results.
fn name(scenario: &str, act: Act) -> &str {
    match (scenario, act) {
        ("churn", Act::Death) => "churn, silent",
        ("churn", Act::Leave) => "churn, leaving",
        ("churn", Act::Return) => "churn, new",
        ("takeover", Act::Death) => SILENT,
        ("first" | "takeover", Act::Return) => scenario,
        (_, Act::Return) => "return",
        (_, Act::Death | Act::Leave) => scenario,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_beside_a_scenario_has_a_name_of_its_own() {
        assert_eq!(name("single", Act::Death), "single");
        assert_eq!(name("single", Act::Return), "return");
        assert_eq!(name("first", Act::Return), "first");
        assert_eq!(name("takeover", Act::Death), "takeover, silent");
        assert_eq!(name("takeover", Act::Leave), "takeover");
        assert_eq!(name("churn", Act::Return), "churn, new");
    }
}

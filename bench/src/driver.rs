//! A run in progress: the orders to the loader, the events of loader and watcher, and the results.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::clock::Moment;
use crate::ledger::{Act, Done, Ledger};
use crate::messages::{Event, Instance, Order};
use crate::results::{self, Run};
use crate::workers::Workers;

/// How long after its deadline an instance is waited for.
pub const GENEROUS: Duration = Duration::from_secs(90);

/// A run in progress.
pub struct Driver {
    /// Identifies the run.
    pub run: Run,
    /// What the loader did and the watcher saw.
    pub ledger: Ledger,
    workers: Workers,
    out: PathBuf,
    began: Moment,
}

impl Driver {
    /// Makes a run with workers that are ready, and a folder that the results are added to.
    pub fn new(run: Run, workers: Workers, ttl: Duration, out: &Path) -> Self {
        let ledger = Ledger::new(ttl);
        Self { run, ledger, workers, out: out.to_owned(), began: Moment::now() }
    }

    /// Prints what happens now.
    pub fn say(&self, what: &str) {
        let Run { system, run, instances, .. } = &self.run;
        eprintln!("{system} run {run}, {instances} instances: {what}");
    }

    /// Adds lines to the results. Each gets the columns of the run.
    pub fn append(&self, name: &str, lines: impl IntoIterator<Item = Value>) -> Result<()> {
        let lines: Vec<Value> = lines.into_iter().map(|line| self.run.line(line)).collect();
        results::append(&self.out, name, &lines)
    }

    /// Gives the loader an order without an expected effect.
    pub async fn order(&mut self, order: &Order) -> Result<()> {
        self.workers.order(order).await
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
        self.workers.order(&order).await
    }

    /// Handles events for a span.
    pub async fn listen(&mut self, span: Duration) -> Result<()> {
        let by = Instant::now() + span;
        while let Some(event) = self.workers.next(by).await? {
            self.ledger.take_in(&event);
        }
        Ok(())
    }

    /// Waits until everything expected was seen. What is not seen within the time is recorded as missed.
    pub async fn settle(&mut self, within: Duration, scenario: &str) -> Result<()> {
        let by = Instant::now() + within;
        while !self.ledger.is_settled() {
            match self.workers.next(by).await? {
                Some(event) => self.ledger.take_in(&event),
                None => break,
            }
        }
        let missed = self.ledger.give_up().into_iter();
        let line =
            |(instance, act)| json!({ "scenario": name(scenario, act), "instance": instance });
        self.append("missed", missed.map(line))?;
        let done = self.ledger.take_done();
        self.note(&done, scenario)
    }

    /// Records the instances that the watcher saw go although they beat, since the last call. Returns their number.
    pub fn note_strays(&mut self, counts: impl Fn(Instance) -> bool) -> Result<u32> {
        let mut strays = self.ledger.take_strays();
        strays.retain(|&instance| counts(instance));
        let line = |instance: &Instance| json!({ "scenario": "stray", "instance": instance });
        self.append("missed", strays.iter().map(line))?;
        Ok(u32::try_from(strays.len())?)
    }

    /// Writes the completed acts into the results. Some acts have a scenario name of their own.
    pub fn note(&self, done: &[Done], scenario: &str) -> Result<()> {
        let since = |moment: Moment| moment.seconds_after(self.began);
        let line = |done: &Done| {
            json!({
                "scenario": name(scenario, done.act),
                "instance": done.instance,
                "last_renewal": since(done.sent),
                "answer": done.answered.seconds_after(done.sent),
                "deadline": since(done.deadline),
                "seen": since(done.seen),
                "lag": done.lag(),
            })
        };
        self.append("lag", done.iter().map(line))
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
        self.say("all register");
        let all: Vec<Instance> = (0..self.run.instances).collect();
        let gently = Duration::from_millis(u64::from(self.run.instances) * 8);
        self.bring_back(&all, gently.max(interval), "first").await
    }

    /// Returns the instances of the run that are registered and of which nothing is expected.
    pub fn idle(&self) -> Vec<Instance> {
        (0..self.run.instances).filter(|&instance| self.ledger.is_idle(instance)).collect()
    }

    /// Returns at most `count` of these instances at random.
    pub fn some_idle(&self, count: u32) -> Vec<Instance> {
        use rand::seq::SliceRandom;
        let mut who = self.idle();
        who.shuffle(&mut rand::rng());
        who.truncate(count as usize);
        who
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
        while let Some(event) = self.workers.next(by).await? {
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
        ("takeover", Act::Death) => "takeover, silent",
        ("first" | "takeover", Act::Return) => scenario,
        (_, Act::Return) => "return",
        (_, Act::Death | Act::Leave) => scenario,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_beside_a_scenario_have_names_of_their_own() {
        assert_eq!(name("single", Act::Death), "single");
        assert_eq!(name("single", Act::Return), "return");
        assert_eq!(name("first", Act::Return), "first");
        assert_eq!(name("takeover", Act::Death), "takeover, silent");
        assert_eq!(name("takeover", Act::Leave), "takeover");
        assert_eq!(name("churn", Act::Return), "churn, new");
    }
}

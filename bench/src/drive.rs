//! A run that is under way: what is ordered, what is told, and where it is noted.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::clock::Moment;
use crate::crew::Crew;
use crate::ledger::{Act, Done, Ledger};
use crate::records::{self, Lag, Missed, Record, Run};
use crate::words::{Event, Instance, Order};

/// Past its deadline nobody is waited for longer than this.
pub const GENEROUS: Duration = Duration::from_secs(90);

/// Those who fell silent when a leader was ended, in the results.
pub const SILENT: &str = "takeover, silent";

/// A run that is under way.
pub struct Drive {
    /// Which.
    pub run: Run,
    /// What was done and seen.
    pub ledger: Ledger,
    crew: Crew,
    out: PathBuf,
    began: Moment,
}

impl Drive {
    /// Of a crew that is ready, with a folder that the results are added to.
    pub fn new(run: Run, crew: Crew, ttl: Duration, out: &Path) -> Self {
        let ledger = Ledger::new(ttl);
        Self { run, ledger, crew, out: out.to_owned(), began: Moment::now() }
    }

    /// Says what happens now.
    pub fn tell(&self, what: &str) {
        let Run { system, run, instances, .. } = &self.run;
        eprintln!("{} run {run}, {instances} instances: {what}", system.as_str());
    }

    /// Adds lines to the results.
    pub fn append<R: Record>(&self, lines: &[R]) -> Result<()> {
        records::append(&self.out, lines)
    }

    /// Orders the loader to do something of which nothing is expected.
    pub async fn order(&mut self, order: &Order) -> Result<()> {
        self.crew.order(order).await
    }

    /// Orders instances to do something, which is expected to be seen.
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

    /// Takes in what is told, for a span.
    pub async fn listen(&mut self, span: Duration) -> Result<()> {
        let by = Instant::now() + span;
        while let Some(event) = self.crew.next(by).await? {
            self.ledger.take_in(&event);
        }
        Ok(())
    }

    /// Until all that is expected has been seen; what is not within a generous time is noted as missed.
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

    /// Notes who did something and was not seen to.
    pub fn missed(&self, scenario: &str, instances: Vec<Instance>) -> Result<()> {
        let line = |instance| Missed::of(&self.run, scenario.to_owned(), instance);
        self.append(&instances.into_iter().map(line).collect::<Vec<_>>())
    }

    /// Writes what is done into the results. What happens beside a scenario has a name of its own.
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

    /// Has instances register over a span, and waits until all are seen.
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

    /// All of a new run, at phases as random as in life; no control plane is asked for more than it can do.
    pub async fn all_register(&mut self, interval: Duration) -> Result<()> {
        self.tell("all register");
        let all: Vec<Instance> = (0..self.run.instances).collect();
        let gently = Duration::from_millis(u64::from(self.run.instances) * 8);
        self.bring_back(&all, gently.max(interval), "first").await
    }

    /// Those of the run who are there and of whom nothing is expected.
    pub fn idle(&self) -> Vec<Instance> {
        (0..self.run.instances).filter(|&instance| self.ledger.is_idle(instance)).collect()
    }

    /// Renewals answered, and not, since the start.
    pub async fn count(&mut self) -> Result<(u64, u64)> {
        self.order(&Order::Count).await?;
        match self.answer(GENEROUS, |event| matches!(event, Event::Counted { .. })).await? {
            Event::Counted { renewals, failures } => Ok((renewals, failures)),
            other => bail!("the loader counts with {other:?}"),
        }
    }

    /// Waits for something that the loader is to tell.
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

/// What an act in a scenario is called in the results.
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

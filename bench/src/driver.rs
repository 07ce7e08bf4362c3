//! A run in progress: the orders to the loader, the events of loader and watcher, and the results.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rand::seq::IteratorRandom;
use serde_json::json;

use crate::clock::{Moment, now};
use crate::ledger::{Done, Ledger};
use crate::messages::{Act, Event, Instance, Order};
use crate::results::{Results, Run};
use crate::system::Setup;
use crate::workers::Workers;

/// How long after its deadline an instance is waited for.
const GENEROUS: Duration = Duration::from_secs(90);

/// A run in progress.
pub struct Driver {
    pub setup: Setup,
    pub results: Results,
    /// What the loader did and the watcher saw.
    pub ledger: Ledger,
    workers: Workers,
    began: Moment,
}

impl Driver {
    /// Starts to watch a running system, and a loader without instances.
    pub async fn start(setup: Setup, address: &str, results: Results) -> Result<Self> {
        let workers = Workers::start(&setup, address).await?;
        let ledger = Ledger::new(setup.ttl);
        Ok(Self { setup, results, ledger, workers, began: now() })
    }

    /// Prints what happens now.
    pub fn say(&self, what: &str) {
        let Run { system, run, instances, .. } = &self.results.run;
        eprintln!("{system:?} run {run}, {instances} instances: {what}");
    }

    /// Makes instances do something that the watcher is expected to see.
    pub async fn act(&mut self, act: Act, instances: Vec<Instance>) -> Result<()> {
        self.act_over(act, instances, Duration::ZERO).await
    }

    async fn act_over(&mut self, act: Act, who: Vec<Instance>, over: Duration) -> Result<()> {
        if who.is_empty() {
            return Ok(());
        }
        self.ledger.expect(act, &who);
        self.workers.order(&Order::Act { act, instances: who, over }).await
    }

    /// Handles events for a span.
    pub async fn listen(&mut self, span: Duration) -> Result<()> {
        let by = Instant::now() + span;
        while let Some(event) = self.workers.next(by).await? {
            self.ledger.take_in(&event);
        }
        Ok(())
    }

    /// Waits until everything expected was seen, and records it. What is not seen within a ttl and 90 s is recorded as
    /// missed.
    pub async fn settle(&mut self, scenario: &str) -> Result<()> {
        let by = Instant::now() + self.setup.ttl + GENEROUS;
        while !self.ledger.is_settled() {
            match self.workers.next(by).await? {
                Some(event) => self.ledger.take_in(&event),
                None => break,
            }
        }
        let line =
            |(instance, act)| json!({ "scenario": scenario, "act": act, "instance": instance });
        self.results.append("missed", self.ledger.give_up().into_iter().map(line))?;
        let done = std::mem::take(&mut self.ledger.done);
        let line = |done: &Done| {
            json!({
                "scenario": scenario,
                "act": done.act,
                "instance": done.instance,
                "last_renewal": done.sent - self.began,
                "answer": done.answered - done.sent,
                "deadline": done.deadline - self.began,
                "seen": done.seen - self.began,
                "lag": done.lag(),
            })
        };
        self.results.append("lag", done.iter().map(line))
    }

    /// Records the instances that the watcher saw go although they beat, since the last call. Returns their number.
    pub fn record_strays(&mut self) -> Result<usize> {
        let strays = std::mem::take(&mut self.ledger.strays);
        let line =
            |instance: &Instance| json!({ "scenario": "stray", "act": null, "instance": instance });
        self.results.append("missed", strays.iter().map(line))?;
        Ok(strays.len())
    }

    /// Makes instances register over a span, and waits until all are seen.
    pub async fn bring_back(
        &mut self,
        who: Vec<Instance>,
        over: Duration,
        scenario: &str,
    ) -> Result<()> {
        self.act_over(Act::Return, who, over).await?;
        self.listen(over).await?;
        self.settle(scenario).await
    }

    /// Makes all instances of a new run register, at random phases as in practice, and beat for a while. The rate is
    /// limited to what the control plane can do.
    pub async fn warm_up(&mut self, span: Duration) -> Result<()> {
        self.say("all register");
        let instances = self.results.run.instances;
        let gently = Duration::from_millis(u64::from(instances) * 8);
        let over = gently.max(self.setup.interval);
        self.bring_back((0..instances).collect(), over, "first").await?;
        self.listen(span).await
    }

    /// Returns at most `count` random instances that are registered and of which nothing is expected, and never more
    /// than half of all.
    pub fn some(&self, count: u32) -> Vec<Instance> {
        let count = count.min(self.results.run.instances / 2);
        self.ledger.idle().choose_multiple(&mut rand::rng(), count as usize)
    }

    /// Returns the number of answered renewals since the start.
    pub async fn renewals(&mut self) -> Result<u64> {
        Ok(self.count(&Order::Count).await?.0)
    }

    /// Gives an order that the loader answers with the numbers of answered and failed renewals.
    pub async fn count(&mut self, order: &Order) -> Result<(u64, u64)> {
        self.workers.order(order).await?;
        let by = Instant::now() + GENEROUS;
        while let Some(event) = self.workers.next(by).await? {
            if let Event::Counted { renewals, failures } = event {
                return Ok((renewals, failures));
            }
            self.ledger.take_in(&event);
        }
        bail!("the loader has not answered within {GENEROUS:?}")
    }
}

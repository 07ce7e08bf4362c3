//! An operator starts, or takes over from a leader that is asked to end or killed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::seq::SliceRandom;
use rustix::process::Signal;

use super::Driver;
use crate::clock::Moment;
use crate::drive::GENEROUS;
use crate::ledger::{Act, Done};
use crate::process::Server;
use crate::records::cost::Takeover;
use crate::scrape;
use crate::systems::beatkeeper::Operator;
use crate::words::Instance;

/// The election uses another namespace, so that its Lease is not counted among those of instances.
const ELECTED: [&str; 2] = ["--leader-elect", "--leader-elect-resource-namespace=default"];
/// The time between two checks of whether the next leader leads.
const PAUSE: Duration = Duration::from_millis(10);
/// The time between two deregistrations during a takeover.
const LEAVING: Duration = Duration::from_millis(50);
/// How many instances deregister at most during one takeover, and never more than half.
const LEAVERS: u32 = 400;
/// How many instances fall silent when a leader is ended.
const SILENT: u32 = 5;
/// How long a takeover may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long after a takeover the watcher's reports of missing instances are still collected.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// The operators and instances of one takeover.
struct Scene<'a> {
    /// The operator that should lead next.
    heir: &'a Operator,
    /// The previous leader, which is to end; `None` if no operator leads.
    predecessor: Option<&'a mut Server>,
    /// The instances that deregister meanwhile, one after the other.
    leavers: Vec<Instance>,
    /// The instance that has registered before, and should be seen.
    newcomer: Option<Instance>,
}

/// When each effect was seen.
struct Seen {
    leads: Moment,
    published: Moment,
    newcomer: Option<Moment>,
}

impl Driver {
    /// Starts operators, one after the other, while no other operator runs.
    pub async fn starts(&mut self) -> Result<()> {
        for round in 1..=self.plan.starts {
            self.drive.tell(&format!("start {round}"));
            self.pass_over_strays()?;
            let absent = self.leavers(1);
            let newcomer = self.newcomer;
            self.newcomer += 1;
            self.drive.act(Act::Leave, absent.clone()).await?;
            self.drive.act(Act::Return, vec![newcomer]).await?;
            self.drive.listen(Duration::from_secs(1)).await?;
            let from = Moment::now();
            let operator = self.elected_operator()?;
            let seen = self
                .takes_over(Scene {
                    heir: &operator,
                    predecessor: None,
                    leavers: Vec::new(),
                    newcomer: Some(newcomer),
                })
                .await?;
            self.note_takeover("start", round, from, &seen).await?;
            self.drive.act(Act::Leave, vec![newcomer]).await?;
            self.drive.bring_back(&absent, Duration::ZERO, "takeover").await?;
            operator.server.end().await?;
        }
        Ok(())
    }

    /// Ends leaders while a second operator stands by, alternately with and without a warning.
    pub async fn failovers(&mut self) -> Result<()> {
        if self.plan.failovers == 0 {
            return Ok(());
        }
        let mut leader = self.elected_operator()?;
        self.observes(&leader).await?;
        for round in 1..=self.plan.failovers {
            for (how, signal) in [("term", Signal::TERM), ("kill", Signal::KILL)] {
                let standby = self.elected_operator()?;
                self.observes(&standby).await?;
                ensure!(leader.leads().await && !standby.leads().await, "the wrong one leads");
                self.drive.tell(&format!("failover {round}: {how}"));
                self.fail_over(how, signal, round, leader, &standby).await?;
                leader = standby;
            }
        }
        leader.server.end().await
    }

    async fn fail_over(
        &mut self,
        how: &str,
        signal: Signal,
        round: u32,
        mut leader: Operator,
        standby: &Operator,
    ) -> Result<()> {
        self.pass_over_strays()?;
        let gone_before = self.drive.idle();
        let mut leavers = self.leavers((SILENT + LEAVERS).min(self.plan.instances / 2));
        let silent = leavers.split_off(leavers.len().saturating_sub(SILENT as usize));
        // These instances deregister just before the leader gets the signal, so that the leader is publishing while
        // it ends.
        for leaver in leavers.split_off(leavers.len().saturating_sub(5)) {
            self.drive.act(Act::Leave, vec![leaver]).await?;
            self.drive.listen(LEAVING).await?;
        }
        self.drive.act(Act::Death, silent).await?;
        let from = Moment::now();
        leader.server.signal(signal)?;
        let predecessor = Some(&mut leader.server);
        let seen =
            self.takes_over(Scene { heir: standby, predecessor, leavers, newcomer: None }).await?;
        self.note_takeover(how, round, from, &seen).await?;
        let mut gone = gone_before;
        gone.retain(|&instance| self.drive.ledger.is_away(instance));
        self.drive.bring_back(&gone, self.setup.interval, "takeover").await
    }

    /// Waits until the heir leads, and the watcher sees a change that only the heir can have published.
    async fn takes_over(&mut self, mut scene: Scene<'_>) -> Result<Seen> {
        let (by, mut next_leaves) = (Instant::now() + PATIENCE, Instant::now());
        let mut ended = scene.predecessor.is_none().then_some(Moment(0));
        let (mut leads, mut is_sure) = (None, false);
        let mut done: Vec<Done> = Vec::new();
        loop {
            ensure!(
                Instant::now() < by,
                "nobody takes over; the log of who should ends with:\n{}",
                scene.heir.server.said()
            );
            if let (None, Some(predecessor)) = (ended, &mut scene.predecessor) {
                ended = predecessor.has_ended()?.then(Moment::now);
            }
            // The heir is asked twice: just after its start, it may not know yet that it must be elected.
            if !is_sure {
                let now = scene.heir.leads().await.then(Moment::now);
                is_sure = leads.is_some() && now.is_some();
                leads = now.and(leads).or(now);
            }
            if Instant::now() >= next_leaves {
                next_leaves += LEAVING;
                self.drive.act(Act::Leave, scene.leavers.pop().into_iter().collect()).await?;
            }
            self.drive.listen(PAUSE).await?;
            done.extend(self.drive.ledger.take_done());
            let newcomer = scene.newcomer.map(|newcomer| arrived(&done, newcomer));
            let published = ended.and_then(|ended| first_gone(&done, ended));
            if let (true, Some(leads), Some(published)) = (is_sure, leads, published)
                && newcomer != Some(None)
            {
                let silent: Vec<Done> =
                    done.into_iter().filter(|done| done.act == Act::Death).collect();
                self.drive.note(&silent, "takeover")?;
                return Ok(Seen { leads, published, newcomer: newcomer.flatten() });
            }
        }
    }

    async fn note_takeover(
        &mut self,
        how: &str,
        round: u32,
        from: Moment,
        seen: &Seen,
    ) -> Result<()> {
        self.drive.listen(AFTERWARDS).await?;
        self.drive.settle(self.setup.ttl + GENEROUS, "takeover").await?;
        let strays = self.drive.ledger.take_strays();
        let line = Takeover::of(
            &self.drive.run,
            how.to_owned(),
            round,
            seen.leads.seconds_after(from),
            seen.published.seconds_after(from),
            seen.newcomer.map(|newcomer| newcomer.seconds_after(from)),
            u32::try_from(strays.len())?,
        );
        self.drive.append(&[line])?;
        self.drive.missed("stray", strays)
    }

    fn elected_operator(&mut self) -> Result<Operator> {
        let name = self.next_name();
        self.stage.operator(&name, &self.stage.kubeconfig(), &ELECTED)
    }

    /// Waits until an operator has seen a beat of every instance, so that its cache is complete.
    async fn observes(&mut self, operator: &Operator) -> Result<()> {
        let by = Instant::now() + PATIENCE;
        loop {
            let samples = operator.scrape().await.unwrap_or_default();
            if scrape::value(&samples, "beatkeeper_beats_total").is_some_and(|beats| beats > 0.0) {
                break;
            }
            ensure!(Instant::now() < by, "an operator sees no beats:\n{}", operator.server.said());
            self.drive.listen(PAUSE).await?;
        }
        self.drive.listen(self.setup.interval + Duration::from_secs(1)).await
    }

    /// Returns some living instances at random.
    fn leavers(&self, count: u32) -> Vec<Instance> {
        let mut who = self.drive.idle();
        who.shuffle(&mut rand::rng());
        who.truncate(count as usize);
        who
    }

    /// Records earlier strays separately, so that they do not count as losses of the next step.
    fn pass_over_strays(&mut self) -> Result<()> {
        let strays = self.drive.ledger.take_strays();
        self.drive.missed("stray", strays)
    }
}

/// Returns when the first instance that deregistered after a moment was seen to be removed.
fn first_gone(done: &[Done], after: Moment) -> Option<Moment> {
    let left = done.iter().filter(|done| done.act == Act::Leave && done.sent >= after);
    left.map(|done| done.seen).min()
}

/// Returns when an instance was seen to appear.
fn arrived(done: &[Done], who: Instance) -> Option<Moment> {
    done.iter().find(|done| done.act == Act::Return && done.instance == who).map(|done| done.seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(act: Act, instance: Instance, sent: u64, seen: u64) -> Done {
        let [sent, seen] = [sent, seen].map(Moment);
        Done { act, instance, sent, answered: sent, deadline: sent, seen }
    }

    #[test]
    fn what_the_one_before_may_have_published_does_not_count() {
        let all = [done(Act::Leave, 1, 90, 105), done(Act::Leave, 2, 101, 180)];
        assert_eq!(first_gone(&all, Moment(100)), Some(Moment(180)));
        assert_eq!(first_gone(&all[..1], Moment(100)), None);
    }

    #[test]
    fn an_instance_that_comes_back_does_not_count_as_a_publication_of_one_that_leaves() {
        let all = [done(Act::Return, 1, 101, 120), done(Act::Leave, 2, 101, 180)];
        assert_eq!(first_gone(&all, Moment(100)), Some(Moment(180)));
        assert_eq!((arrived(&all, 1), arrived(&all, 2)), (Some(Moment(120)), None));
    }
}

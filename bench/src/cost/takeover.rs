//! An operator starts, or takes over from a leader that is asked to end or killed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::json;

use super::measurement::Measurement;
use crate::clock::Moment;
use crate::driver::GENEROUS;
use crate::ledger::{Act, Done};
use crate::messages::Instance;
use crate::metrics;
use crate::process::Server;
use crate::systems::control_plane::Operator;

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
struct Takeover<'a> {
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

/// Starts operators, one after the other, while no other operator runs.
pub async fn starts(measurement: &mut Measurement, count: u32) -> Result<()> {
    for round in 1..=count {
        measurement.driver.say(&format!("start {round}"));
        // Earlier strays do not count as losses of this step.
        measurement.driver.note_strays(|_| true)?;
        let absent = measurement.driver.some_idle(1);
        let newcomer = measurement.newcomer;
        measurement.newcomer += 1;
        measurement.driver.act(Act::Leave, absent.clone()).await?;
        measurement.driver.act(Act::Return, vec![newcomer]).await?;
        measurement.driver.listen(Duration::from_secs(1)).await?;
        let from = Moment::now();
        let operator = elected_operator(measurement)?;
        let (heir, newcomer) = (&operator, Some(newcomer));
        let takeover = Takeover { heir, predecessor: None, leavers: Vec::new(), newcomer };
        let seen = takes_over(measurement, takeover).await?;
        note(measurement, "start", round, from, &seen).await?;
        measurement.driver.act(Act::Leave, newcomer.into_iter().collect()).await?;
        measurement.driver.bring_back(&absent, Duration::ZERO, "takeover").await?;
        operator.server.end().await?;
    }
    Ok(())
}

/// Ends leaders while a second operator stands by, alternately with and without a warning.
pub async fn failovers(measurement: &mut Measurement, count: u32) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let mut leader = elected_operator(measurement)?;
    observes(measurement, &leader).await?;
    for round in 1..=count {
        for (how, signal) in [("term", Signal::TERM), ("kill", Signal::KILL)] {
            let standby = elected_operator(measurement)?;
            observes(measurement, &standby).await?;
            ensure!(leader.leads().await && !standby.leads().await, "the wrong one leads");
            measurement.driver.say(&format!("failover {round}: {how}"));
            fail_over(measurement, (how, signal), round, leader, &standby).await?;
            leader = standby;
        }
    }
    leader.server.end().await
}

async fn fail_over(
    measurement: &mut Measurement,
    (how, signal): (&str, Signal),
    round: u32,
    mut leader: Operator,
    standby: &Operator,
) -> Result<()> {
    let driver = &mut measurement.driver;
    driver.note_strays(|_| true)?;
    let mut gone = driver.idle();
    let mut leavers = driver.some_idle((SILENT + LEAVERS).min(driver.run.instances / 2));
    let silent = leavers.split_off(leavers.len().saturating_sub(SILENT as usize));
    // These instances deregister just before the leader gets the signal, so that the leader is publishing while it
    // ends.
    for leaver in leavers.split_off(leavers.len().saturating_sub(5)) {
        driver.act(Act::Leave, vec![leaver]).await?;
        driver.listen(LEAVING).await?;
    }
    driver.act(Act::Death, silent).await?;
    let from = Moment::now();
    leader.server.signal(signal)?;
    let predecessor = Some(&mut leader.server);
    let takeover = Takeover { heir: standby, predecessor, leavers, newcomer: None };
    let seen = takes_over(measurement, takeover).await?;
    note(measurement, how, round, from, &seen).await?;
    gone.retain(|&instance| measurement.driver.ledger.is_away(instance));
    measurement.driver.bring_back(&gone, measurement.setup.interval, "takeover").await
}

/// Waits until the heir leads, and the watcher sees a change that only the heir can have published.
async fn takes_over(measurement: &mut Measurement, mut takeover: Takeover<'_>) -> Result<Seen> {
    let driver = &mut measurement.driver;
    let (by, mut next_leaves) = (Instant::now() + PATIENCE, Instant::now());
    let mut ended = takeover.predecessor.is_none().then_some(Moment(0));
    let (mut leads, mut is_sure) = (None, false);
    let mut done: Vec<Done> = Vec::new();
    loop {
        let log = || takeover.heir.server.log_tail();
        ensure!(Instant::now() < by, "no operator takes over; the log ends with:\n{}", log());
        if let (None, Some(predecessor)) = (ended, &mut takeover.predecessor) {
            ended = predecessor.has_ended()?.then(Moment::now);
        }
        // The heir is asked twice: just after its start, it may not know yet that it must be elected.
        if !is_sure {
            let now = takeover.heir.leads().await.then(Moment::now);
            is_sure = leads.is_some() && now.is_some();
            leads = now.and(leads).or(now);
        }
        if Instant::now() >= next_leaves {
            next_leaves += LEAVING;
            driver.act(Act::Leave, takeover.leavers.pop().into_iter().collect()).await?;
        }
        driver.listen(PAUSE).await?;
        done.extend(driver.ledger.take_done());
        let newcomer = takeover.newcomer.map(|newcomer| arrived(&done, newcomer));
        let published = ended.and_then(|ended| first_gone(&done, ended));
        if let (true, Some(leads), Some(published)) = (is_sure, leads, published)
            && newcomer != Some(None)
        {
            done.retain(|done| done.act == Act::Death);
            driver.note(&done, "takeover")?;
            return Ok(Seen { leads, published, newcomer: newcomer.flatten() });
        }
    }
}

async fn note(
    measurement: &mut Measurement,
    how: &str,
    round: u32,
    from: Moment,
    seen: &Seen,
) -> Result<()> {
    let driver = &mut measurement.driver;
    driver.listen(AFTERWARDS).await?;
    driver.settle(measurement.setup.ttl + GENEROUS, "takeover").await?;
    let lost = driver.note_strays(|_| true)?;
    let line = json!({
        "how": how, "round": round, "leads": seen.leads.seconds_after(from),
        "published": seen.published.seconds_after(from),
        "newcomer": seen.newcomer.map(|newcomer| newcomer.seconds_after(from)), "lost": lost,
    });
    driver.append("takeovers", [line])
}

fn elected_operator(measurement: &mut Measurement) -> Result<Operator> {
    let name = measurement.next_name();
    measurement.cluster.operator(&name, &measurement.cluster.kubeconfig(), &ELECTED)
}

/// Waits until an operator has seen a beat of every instance, so that its cache is complete.
async fn observes(measurement: &mut Measurement, operator: &Operator) -> Result<()> {
    let by = Instant::now() + PATIENCE;
    loop {
        let samples = operator.scrape().await.unwrap_or_default();
        if metrics::value(&samples, "beatkeeper_beats_total").is_some_and(|beats| beats > 0.0) {
            break;
        }
        let log = || operator.server.log_tail();
        ensure!(Instant::now() < by, "an operator sees no beats:\n{}", log());
        measurement.driver.listen(PAUSE).await?;
    }
    measurement.driver.listen(measurement.setup.interval + Duration::from_secs(1)).await
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
    fn a_change_that_the_predecessor_may_have_published_does_not_count() {
        let all = [done(Act::Leave, 1, 90, 105), done(Act::Leave, 2, 101, 180)];
        assert_eq!(first_gone(&all, Moment(100)), Some(Moment(180)));
        assert_eq!(first_gone(&all[..1], Moment(100)), None);
    }

    #[test]
    fn an_instance_that_comes_back_is_no_publication_of_one_that_leaves() {
        let all = [done(Act::Return, 1, 101, 120), done(Act::Leave, 2, 101, 180)];
        assert_eq!(first_gone(&all, Moment(100)), Some(Moment(180)));
        assert_eq!((arrived(&all, 1), arrived(&all, 2)), (Some(Moment(120)), None));
    }
}

//! An operator starts, or takes over from a leader that is asked to end or killed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::json;

use super::measurement::Measurement;
use crate::clock::{Moment, now};
use crate::driver::Driver;
use crate::ledger::Done;
use crate::messages::{Act, Instance};
use crate::process::{PATIENCE, until_it_answers};
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
/// How long after a takeover the watcher's reports of missing instances are still collected.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// The operators and instances of one takeover.
struct Takeover<'a> {
    /// The signal that ends the predecessor, or `start`.
    how: &'a str,
    round: u32,
    /// When the heir was started, or the predecessor got the signal.
    from: Moment,
    /// The operator that should lead next.
    heir: &'a Operator,
    /// The previous leader, which is to end; `None` if no operator leads.
    predecessor: Option<&'a mut Operator>,
    /// The instances that deregister meanwhile, one after the other.
    leavers: Vec<Instance>,
    /// The instance that has registered before, and should be seen.
    newcomer: Option<Instance>,
}

/// Starts operators, one after the other, while no other operator runs.
pub async fn starts(measurement: &mut Measurement, count: u32) -> Result<()> {
    for round in 1..=count {
        measurement.driver.say(&format!("start {round}"));
        // Earlier strays do not count as losses of this step.
        measurement.driver.record_strays()?;
        let absent = measurement.driver.some(1);
        let newcomer = measurement.newcomer;
        measurement.newcomer += 1;
        measurement.driver.act(Act::Leave, absent.clone()).await?;
        measurement.driver.act(Act::Return, vec![newcomer]).await?;
        measurement.driver.listen(Duration::from_secs(1)).await?;
        let from = now();
        let mut operator = elected_operator(measurement)?;
        let takeover = Takeover {
            how: "start",
            round,
            from,
            heir: &operator,
            predecessor: None,
            leavers: Vec::new(),
            newcomer: Some(newcomer),
        };
        takes_over(&mut measurement.driver, takeover).await?;
        measurement.driver.act(Act::Leave, vec![newcomer]).await?;
        measurement.driver.bring_back(absent, Duration::ZERO, "takeover").await?;
        operator.process.stop(PATIENCE).await?;
    }
    Ok(())
}

/// Ends leaders while a second operator stands by, alternately with and without a warning.
pub async fn failovers(measurement: &mut Measurement, count: u32) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let mut leader = observing_operator(measurement).await?;
    for round in 1..=count {
        for (how, signal) in [("term", Signal::TERM), ("kill", Signal::KILL)] {
            let standby = observing_operator(measurement).await?;
            ensure!(leader.leads().await && !standby.leads().await, "the wrong one leads");
            measurement.driver.say(&format!("failover {round}: {how}"));
            fail_over(&mut measurement.driver, (how, signal), round, leader, &standby).await?;
            leader = standby;
        }
    }
    leader.process.stop(PATIENCE).await.map(drop)
}

async fn fail_over(
    driver: &mut Driver,
    (how, signal): (&str, Signal),
    round: u32,
    mut leader: Operator,
    heir: &Operator,
) -> Result<()> {
    driver.record_strays()?;
    let mut gone: Vec<Instance> = driver.ledger.idle().collect();
    let mut leavers = driver.some(SILENT + LEAVERS);
    let silent = leavers.split_off(leavers.len().saturating_sub(SILENT as usize));
    // These instances deregister just before the leader gets the signal, so that the leader is publishing while it
    // ends.
    for leaver in leavers.split_off(leavers.len().saturating_sub(5)) {
        driver.act(Act::Leave, vec![leaver]).await?;
        driver.listen(LEAVING).await?;
    }
    driver.act(Act::Death, silent).await?;
    let from = now();
    leader.process.signal(signal)?;
    let predecessor = Some(&mut leader);
    let takeover = Takeover { how, round, from, heir, predecessor, leavers, newcomer: None };
    takes_over(driver, takeover).await?;
    gone.retain(|&instance| driver.ledger.is_away(instance));
    driver.bring_back(gone, driver.setup.interval, "takeover").await
}

/// Waits until the heir leads, and the watcher sees a change that only the heir can have published. Records when.
async fn takes_over(driver: &mut Driver, mut takeover: Takeover<'_>) -> Result<()> {
    let (by, mut next_leaves) = (Instant::now() + PATIENCE, Instant::now());
    let mut ended = takeover.predecessor.is_none().then_some(0.0);
    let (mut leads, mut is_sure) = (None, false);
    let (leads, published, newcomer) = loop {
        let log = || takeover.heir.process.said(10);
        ensure!(Instant::now() < by, "no operator takes over; the log ends with:\n{}", log());
        if let (None, Some(predecessor)) = (ended, &mut takeover.predecessor) {
            ended = predecessor.process.has_ended()?.then(now);
        }
        // The heir is asked twice: just after its start, it may not know yet that it must be elected.
        if !is_sure {
            let seen = takeover.heir.leads().await.then(now);
            is_sure = leads.is_some() && seen.is_some();
            leads = seen.and(leads).or(seen);
        }
        if Instant::now() >= next_leaves {
            next_leaves += LEAVING;
            driver.act(Act::Leave, takeover.leavers.pop().into_iter().collect()).await?;
        }
        driver.listen(PAUSE).await?;
        let done = &driver.ledger.done;
        let newcomer = takeover.newcomer.and_then(|newcomer| arrived(done, newcomer));
        let published = ended.and_then(|ended| first_gone(done, ended));
        if let (true, Some(leads), Some(published)) = (is_sure, leads, published)
            && newcomer.is_some() == takeover.newcomer.is_some()
        {
            break (leads, published, newcomer);
        }
    };
    driver.ledger.done.retain(|done| done.act == Act::Death);
    driver.listen(AFTERWARDS).await?;
    driver.settle("takeover").await?;
    let lost = driver.record_strays()?;
    let Takeover { how, round, from, .. } = takeover;
    let line = json!({
        "how": how, "round": round, "leads": leads - from, "published": published - from,
        "newcomer": newcomer.map(|newcomer| newcomer - from), "lost": lost,
    });
    driver.results.append("takeovers", [line])
}

fn elected_operator(measurement: &mut Measurement) -> Result<Operator> {
    let name = measurement.next_name();
    measurement.cluster.operator(&name, &measurement.cluster.plane.kubeconfig(), &ELECTED)
}

/// Starts an operator, and waits until it has seen a beat of every instance, so that its cache is complete.
async fn observing_operator(measurement: &mut Measurement) -> Result<Operator> {
    let operator = elected_operator(measurement)?;
    until_it_answers(&operator.process, async || {
        let beats = operator.metric("beatkeeper_beats_total").await?;
        ensure!(beats.is_some_and(|beats| beats > 0.0), "the operator sees no beats");
        Ok(())
    })
    .await?;
    let all_have_beaten = measurement.driver.setup.interval + Duration::from_secs(1);
    measurement.driver.listen(all_have_beaten).await?;
    Ok(operator)
}

/// Returns when the first instance that deregistered after a moment was seen to be removed.
fn first_gone(done: &[Done], after: Moment) -> Option<Moment> {
    let left = done.iter().filter(|done| done.act == Act::Leave && done.sent >= after);
    left.map(|done| done.seen).reduce(f64::min)
}

/// Returns when an instance was seen to appear.
fn arrived(done: &[Done], who: Instance) -> Option<Moment> {
    done.iter().find(|done| done.act == Act::Return && done.instance == who).map(|done| done.seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(act: Act, instance: Instance, sent: Moment, seen: Moment) -> Done {
        Done { act, instance, sent, answered: sent, deadline: sent, seen }
    }

    #[test]
    fn a_change_that_the_predecessor_may_have_published_does_not_count() {
        let all = [done(Act::Leave, 1, 90.0, 105.0), done(Act::Leave, 2, 101.0, 180.0)];
        assert_eq!(first_gone(&all, 100.0), Some(180.0));
        assert_eq!(first_gone(&all[..1], 100.0), None);
    }

    #[test]
    fn an_instance_that_comes_back_is_no_publication_of_one_that_leaves() {
        let all = [done(Act::Return, 1, 101.0, 120.0), done(Act::Leave, 2, 101.0, 180.0)];
        assert_eq!(first_gone(&all, 100.0), Some(180.0));
        assert_eq!((arrived(&all, 1), arrived(&all, 2)), (Some(120.0), None));
    }
}

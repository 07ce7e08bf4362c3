//! Instances come and go continuously.

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::Rng;

use super::measurement::Measurement;
use crate::driver::GENEROUS;
use crate::ledger::Act;
use crate::messages::Instance;
use crate::systems::control_plane::Operator;

/// The time between two replacements.
const PACE: Duration = Duration::from_millis(100);

/// Measures while instances are replaced, so many a second: half of the leaving instances deregister, and half fall
/// silent.
pub async fn measure(
    measurement: &mut Measurement,
    operator: &Operator,
    span: Duration,
    a_second: f64,
) -> Result<()> {
    let ttl = measurement.setup.ttl;
    let mut living = measurement.driver.idle();
    // The first ttl is not measured. After it, as many deadlines pass as instances fall silent.
    replace(measurement, &mut living, ttl, a_second).await?;
    let before = measurement.reading(operator).await?;
    replace(measurement, &mut living, span, a_second).await?;
    let after = measurement.reading(operator).await?;
    measurement.record("churn", &before, &after)?;
    measurement.driver.settle(ttl + GENEROUS, "churn").await
}

async fn replace(
    measurement: &mut Measurement,
    living: &mut Vec<Instance>,
    span: Duration,
    a_second: f64,
) -> Result<()> {
    let (began, mut replaced) = (Instant::now(), 0);
    while began.elapsed() < span {
        let due = (began.elapsed().as_secs_f64() * a_second) as u32;
        let (mut silent, mut leaving, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for n in replaced..due {
            let Some(victim) = pick(measurement, living) else { break };
            if n % 2 == 0 {
                silent.push(victim)
            } else {
                leaving.push(victim)
            }
            new.push(measurement.newcomer);
            measurement.newcomer += 1;
        }
        replaced = due;
        living.extend(&new);
        measurement.driver.act(Act::Death, silent).await?;
        measurement.driver.act(Act::Leave, leaving).await?;
        measurement.driver.act(Act::Return, new).await?;
        measurement.driver.listen(PACE).await?;
    }
    Ok(())
}

/// Takes out a random instance that the watcher has seen.
fn pick(measurement: &Measurement, living: &mut Vec<Instance>) -> Option<Instance> {
    // The newest instances may not have been seen yet, but they are few.
    const TRIES: usize = 100;
    for _ in 0..TRIES.min(living.len()) {
        let place = rand::rng().random_range(0..living.len());
        if measurement.driver.ledger.is_idle(living[place]) {
            return Some(living.swap_remove(place));
        }
    }
    None
}

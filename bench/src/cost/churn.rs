//! Instances come and go continuously.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::measurement::Measurement;
use crate::messages::{Act, Instance};
use crate::meter::Edge;
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
    // The first ttl is not measured. After it, as many deadlines pass as instances fall silent.
    replace(measurement, measurement.driver.setup.ttl, a_second).await?;
    measurement.record(operator, Edge::Began("churn")).await?;
    replace(measurement, span, a_second).await?;
    measurement.record(operator, Edge::Ended("churn")).await?;
    measurement.driver.settle("churn").await
}

async fn replace(measurement: &mut Measurement, span: Duration, a_second: f64) -> Result<()> {
    let (began, mut replaced) = (Instant::now(), 0);
    while began.elapsed() < span {
        let due = (began.elapsed().as_secs_f64() * a_second) as Instance;
        let mut leaving = measurement.driver.some(due - replaced);
        let first = measurement.newcomer;
        measurement.newcomer += leaving.len() as Instance;
        // The instance that is one too many falls silent and leaves by turns.
        let silent = leaving.split_off((leaving.len() + replaced as usize % 2) / 2);
        replaced = due;
        measurement.driver.act(Act::Death, silent).await?;
        measurement.driver.act(Act::Leave, leaving).await?;
        let new = (first..measurement.newcomer).collect();
        measurement.driver.act(Act::Return, new).await?;
        measurement.driver.listen(PACE).await?;
    }
    Ok(())
}

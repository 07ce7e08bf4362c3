//! Instances come and go continuously.

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::Rng;

use super::Driver;
use crate::drive::GENEROUS;
use crate::ledger::Act;
use crate::systems::beatkeeper::Operator;
use crate::words::Instance;

/// The time between two replacements.
const PACE: Duration = Duration::from_millis(100);

impl Driver {
    /// Measures while instances are replaced: half of the leaving instances deregister, and half fall silent.
    pub async fn churn(&mut self, operator: &Operator) -> Result<()> {
        let mut living = self.drive.idle();
        // The first ttl is not measured. After it, as many deadlines pass as instances fall silent.
        self.replace(&mut living, self.setup.ttl).await?;
        let before = self.reading(operator).await?;
        self.replace(&mut living, Duration::from_secs(self.plan.churn)).await?;
        let after = self.reading(operator).await?;
        self.account("churn", &before, &after)?;
        self.drive.settle(self.setup.ttl + GENEROUS, "churn").await
    }

    async fn replace(&mut self, living: &mut Vec<Instance>, span: Duration) -> Result<()> {
        let a_second = f64::from(self.plan.instances) * self.plan.replaced;
        let (began, mut replaced) = (Instant::now(), 0);
        while began.elapsed() < span {
            let due = due(began.elapsed(), a_second);
            let (mut silent, mut leaving, mut new) = (Vec::new(), Vec::new(), Vec::new());
            for n in replaced..due {
                let Some(victim) = self.pick(living) else { break };
                if n % 2 == 0 {
                    silent.push(victim)
                } else {
                    leaving.push(victim)
                }
                new.push(self.newcomer);
                self.newcomer += 1;
            }
            replaced = due;
            living.extend(&new);
            self.drive.act(Act::Death, silent).await?;
            self.drive.act(Act::Leave, leaving).await?;
            self.drive.act(Act::Return, new).await?;
            self.drive.listen(PACE).await?;
        }
        Ok(())
    }

    /// Takes out a random instance that the watcher has seen.
    fn pick(&self, living: &mut Vec<Instance>) -> Option<Instance> {
        // The newest instances may not have been seen yet, but they are few.
        const TRIES: u32 = 100;
        for _ in 0..TRIES.min(u32::try_from(living.len()).ok()?) {
            let place = rand::rng().random_range(0..living.len());
            if self.drive.ledger.is_idle(living[place]) {
                return Some(living.swap_remove(place));
            }
        }
        None
    }
}

/// Returns how many instances should have been replaced after a time.
fn due(elapsed: Duration, a_second: f64) -> u32 {
    (elapsed.as_secs_f64() * a_second) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_one_a_second_adds_up() {
        let at = |tenths: u64| due(Duration::from_millis(100 * tenths), 0.5);
        assert_eq!((at(0), at(19), at(20), at(41)), (0, 0, 1, 2));
    }
}

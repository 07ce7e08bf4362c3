//! A crowd of instances, watchers who miss nothing, and the books that are drawn up afterwards: what
//! the tests of faults have in common.

mod arena;
mod chronicle;
mod crowd;
mod figures;
mod life;
mod span;
mod weather;

pub use arena::{Arena, Scale};

use rand::{SeedableRng, rngs::StdRng};

/// Names the seed of a run that is to be repeated. What is random is repeated, and what the machine
/// makes of it is not.
const SEED_VARIABLE: &str = "BEATKEEPER_CHAOS_SEED";

/// Random numbers whose seed is printed, so that the same faults can be played again.
pub fn seeded(case: &str) -> StdRng {
    let given = std::env::var(SEED_VARIABLE).ok();
    let seed = given.map_or_else(rand::random, |seed| seed.parse().expect("the seed is a number"));
    println!("\n{case}: {SEED_VARIABLE}={seed}");
    StdRng::seed_from_u64(seed)
}

/// Several control planes at once would starve each other on a small machine: faults of the control
/// plane take turns.
pub async fn turn() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}

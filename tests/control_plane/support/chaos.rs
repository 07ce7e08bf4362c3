//! What the tests of faults share: many instances, an observer that misses no state, and an evaluation of
//! the records at the end.

mod conditions;
mod evaluation;
mod fixture;
mod instances;
mod record;
mod replicas;
mod span;

pub use fixture::{ChaosFixture, Scale};
pub use replicas::{Replicas, after};

use beatkeeper_cluster::{ControlPlane, Options};
use rand::{SeedableRng, rngs::StdRng};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// Environment variable with the seed of a run that is to be repeated. The random choices are then
/// the same. The timing of the machine is not.
const SEED_VARIABLE: &str = "BEATKEEPER_CHAOS_SEED";

/// Random numbers from a seed that is printed, so that a run can be repeated with the same faults.
pub fn seeded(case: &str) -> StdRng {
    let given = std::env::var(SEED_VARIABLE).ok();
    let seed = given.map_or_else(rand::random, |seed| seed.parse().expect("the seed is a number"));
    println!("\n{case}: {SEED_VARIABLE}={seed}");
    StdRng::seed_from_u64(seed)
}

/// The control plane that tests may break. Only one test uses it at a time, because several control
/// planes at once would starve each other on a small machine. A test must leave it working.
pub async fn turn() -> MutexGuard<'static, &'static ControlPlane> {
    static PLANE: OnceCell<Mutex<&'static ControlPlane>> = OnceCell::const_new();
    let start = async || {
        let plane = ControlPlane::start(Options::default()).await.unwrap();
        plane.declare(&beatkeeper_api::crd()).await.unwrap();
        // The control plane ends with the test process.
        Mutex::new(&*Box::leak(Box::new(plane)))
    };
    PLANE.get_or_init(start).await.lock().await
}

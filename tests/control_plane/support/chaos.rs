//! A crowd of instances, watchers who miss nothing, and the books that are drawn up afterwards: what
//! the tests of faults have in common.

mod arena;
mod chronicle;
mod crowd;
mod figures;
mod life;
mod replicas;
mod span;
mod weather;

pub use arena::{Arena, Scale};
pub use chronicle::Chronicle;
pub use replicas::{Replicas, after};

use beatkeeper_cluster::{ControlPlane, Options};
use rand::{SeedableRng, rngs::StdRng};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

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

/// The control plane that tests may break, one at a time: several at once would starve each other on
/// a small machine. Whoever has it leaves it whole.
pub async fn turn() -> MutexGuard<'static, &'static ControlPlane> {
    static PLANE: OnceCell<Mutex<&'static ControlPlane>> = OnceCell::const_new();
    let start = async || {
        let plane = ControlPlane::start(Options::default()).await.unwrap();
        plane.declare(&beatkeeper_api::crd()).await.unwrap();
        // It ends with the process.
        Mutex::new(&*Box::leak(Box::new(plane)))
    };
    PLANE.get_or_init(start).await.lock().await
}

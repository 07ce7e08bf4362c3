//! The surroundings of a gateway: certificates, tokens, a leader, and clients.

pub mod clients;
pub mod leader;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod rsa;
pub mod tokens;
pub mod world;

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};

/// The longest that a condition is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for a future that has to end.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

//! No fault, and many instances that start, stop and die: no living instance is missing and no dead
//! one stays.

use std::time::Duration;

use crate::support::chaos::{ChaosFixture, Scale};

/// Returns the instances that left late.
async fn churn(scale: Scale, pace: Duration) -> Vec<String> {
    let mut chaos = ChaosFixture::new("churn without a fault", scale).await;
    let _operator = chaos.ns.operator();
    chaos.fill().await;
    let time = Duration::from_secs(scale.rounds.into());
    let mut chance = chaos.chance();
    chaos.instances.churn(&mut chance, pace, time).await;
    chaos.settle(0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_that_come_and_go_no_living_one_blinks_and_no_dead_one_stays() {
    let scale = Scale {
        registrations: 4,
        instances: 200,
        ttl: Duration::from_secs(6),
        interval: Duration::from_secs(3),
        rounds: 15,
    };
    churn(scale, Duration::from_millis(150)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos"]
async fn two_thousand_that_come_and_go_for_two_minutes_in_full() {
    let scale = Scale {
        registrations: 20,
        instances: 2000,
        ttl: Duration::from_secs(30),
        interval: Duration::from_secs(10),
        rounds: 120,
    };
    let late = churn(scale, Duration::from_millis(60)).await;
    assert_eq!(late, [""; 0], "still there a second after the evidence was in");
}

//! The API server hangs or is away, and comes back.

use crate::support::chaos::{ChaosFixture, Scale, turn};

/// Suspends the API server for three ttls, while some instances die.
async fn suspended(case: &str, scale: Scale) {
    let plane = turn().await;
    let mut chaos = ChaosFixture::new_on(*plane, case, scale).await;
    let _operator = chaos.ns.operator();
    for _ in 0..scale.rounds {
        chaos.fill().await;
        plane.api_server().suspend().await.unwrap();
        chaos.die(3, 3 * scale.ttl).await;
        plane.api_server().resume().await.unwrap();
    }
    chaos.settle(scale.rounds).await;
}

/// Kills the API server and starts it again after a ttl, while some instances die.
async fn killed(case: &str, scale: Scale) {
    let plane = turn().await;
    let mut chaos = ChaosFixture::new_on(*plane, case, scale).await;
    let _operator = chaos.ns.operator();
    for _ in 0..scale.rounds {
        chaos.fill().await;
        plane.api_server().kill().await.unwrap();
        chaos.die(2, scale.ttl).await;
        plane.api_server().start().await.unwrap();
    }
    chaos.settle(scale.rounds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_hangs_for_three_ttls_costs_no_living_instance_its_place_and_keeps_no_dead_one()
 {
    suspended("API server suspended for 3×ttl", Scale::thirty(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos"]
async fn an_api_server_that_hangs_ten_times_in_full() {
    suspended("API server suspended for 3×ttl", Scale::thirty(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_killed_and_restarted_costs_no_living_instance_its_place() {
    killed("API server killed and restarted", Scale::thirty(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos"]
async fn an_api_server_that_is_killed_ten_times_in_full() {
    killed("API server killed and restarted", Scale::thirty(10)).await;
}

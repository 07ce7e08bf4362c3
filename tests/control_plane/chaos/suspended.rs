//! The operator is suspended, as on a paused virtual machine, while its workloads beat.

use std::time::Instant;

use crate::support::chaos::{ChaosFixture, Scale};

async fn suspended(scale: Scale) {
    let mut chaos = ChaosFixture::new("operator suspended for 3×ttl", scale).await;
    let operator = chaos.ns.operator();
    for _ in 0..scale.rounds {
        chaos.fill().await;
        let from = Instant::now();
        operator.suspend();
        chaos.die(3, 3 * scale.ttl).await;
        operator.resume();
        chaos.conditions.operator_away(from, Instant::now());
    }
    chaos.settle(scale.rounds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_suspended_for_three_ttls_prunes_only_the_dead() {
    suspended(Scale::thirty(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos"]
async fn an_operator_that_stands_still_ten_times_in_full() {
    suspended(Scale::thirty(10)).await;
}

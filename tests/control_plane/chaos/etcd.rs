//! etcd is killed and comes back with its data. The API server keeps running, but it can neither
//! write nor do live reads meanwhile.

use crate::support::chaos::{ChaosFixture, Scale, turn};

async fn killed(scale: Scale) {
    let plane = turn().await;
    let mut chaos = ChaosFixture::new_on(*plane, "etcd killed and restarted", scale).await;
    let _operator = chaos.ns.operator();
    for _ in 0..scale.rounds {
        chaos.fill().await;
        plane.etcd().kill().await.unwrap();
        chaos.die(2, scale.ttl).await;
        plane.etcd().start().await.unwrap();
    }
    chaos.settle(scale.rounds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_killed_and_restarted_costs_no_living_instance_its_place() {
    killed(Scale::thirty(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos"]
async fn a_store_that_is_killed_ten_times_in_full() {
    killed(Scale::thirty(10)).await;
}

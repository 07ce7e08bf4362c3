//! The store is killed and comes back with its data: the API server is there all the time, and can
//! neither write nor read anew.

use crate::support::chaos::{Arena, Scale, turn};

async fn killed(scale: Scale) {
    let _turn = turn().await;
    let mut arena = Arena::on_own_plane("etcd killed and restarted", scale).await;
    let plane = arena.shop.plane;
    let _operator = arena.shop.operator();
    arena.fill().await;
    for _ in 0..scale.rounds {
        plane.etcd().kill().await.unwrap();
        arena.die(2, scale.ttl).await;
        plane.etcd().start().await.unwrap();
        tokio::time::sleep(2 * scale.ttl).await;
    }
    arena.settle(scale.rounds as usize).await;
    Arena::end_plane(plane).await;
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

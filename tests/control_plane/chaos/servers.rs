//! The API server hangs or is away, and comes back. Or etcd is killed and comes back with its data: the API server keeps
//! running, but it can neither write nor do live reads meanwhile.

use beatkeeper_cluster::ControlPlane;

use crate::support::chaos::{ChaosFixture, Scale, turn};

/// In each round, stops a server for some ttls, while instances die: three in three ttls, two in one.
async fn interrupted(
    case: &str,
    scale: Scale,
    ttls: u32,
    stop: impl AsyncFn(&'static ControlPlane),
    resume: impl AsyncFn(&'static ControlPlane),
) {
    let plane = turn().await;
    let mut chaos = ChaosFixture::new_on(*plane, case, scale).await;
    let _operator = chaos.ns.operator();
    for _ in 0..scale.rounds {
        chaos.fill().await;
        stop(*plane).await;
        chaos.die(ttls.max(2), ttls * scale.ttl).await;
        resume(*plane).await;
    }
    chaos.settle(scale.rounds).await;
}

async fn suspended(scale: Scale) {
    let suspend = async |plane: &'static ControlPlane| plane.api_server().suspend().await.unwrap();
    let resume = async |plane: &'static ControlPlane| plane.api_server().resume().await.unwrap();
    interrupted("API server suspended for 3×ttl", scale, 3, suspend, resume).await;
}

async fn killed(scale: Scale) {
    let kill = async |plane: &'static ControlPlane| plane.api_server().kill().await.unwrap();
    let start = async |plane: &'static ControlPlane| plane.api_server().start().await.unwrap();
    interrupted("API server killed and restarted", scale, 1, kill, start).await;
}

async fn store_killed(scale: Scale) {
    let kill = async |plane: &'static ControlPlane| plane.etcd().kill().await.unwrap();
    let start = async |plane: &'static ControlPlane| plane.etcd().start().await.unwrap();
    interrupted("etcd killed and restarted", scale, 1, kill, start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_hangs_for_three_ttls_costs_no_living_instance_its_place_and_keeps_no_dead_one()
 {
    suspended(Scale::thirty(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos"]
async fn an_api_server_that_hangs_ten_times_in_full() {
    suspended(Scale::thirty(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_killed_and_restarted_costs_no_living_instance_its_place() {
    killed(Scale::thirty(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos"]
async fn an_api_server_that_is_killed_ten_times_in_full() {
    killed(Scale::thirty(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_killed_and_restarted_costs_no_living_instance_its_place() {
    store_killed(Scale::thirty(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos"]
async fn a_store_that_is_killed_ten_times_in_full() {
    store_killed(Scale::thirty(10)).await;
}

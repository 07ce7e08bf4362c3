//! Beats through gateways: real processes of operator and gateway, real tokens and Leases.

mod contract;
mod world;

use beatkeeper_api::{ServiceRegistration, heartbeat::TTL_ANNOTATION};
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;

use self::world::{TTL, World};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn beats_through_a_gateway_keep_an_instance_without_a_write_of_its_lease_and_it_leaves_after_the_last()
 {
    let world = World::new("gateway").await;
    let _operator = world.operator("first");
    let gateway = world.gateway("gw").await;
    world.register().await;
    let (one, two) = (
        world.instance("a", "10.1.0.1", &gateway).await,
        world.instance("b", "10.1.0.2", &gateway).await,
    );
    one.accepted().await;
    two.accepted().await;

    let message = one.refused("greeter.b", 403).await;
    assert!(message.contains("Pod b owns Lease greeter.b"), "{message}");
    one.refused("greeter.c", 404).await;

    let created = one.lease.metadata.resource_version.clone();
    let (one, two) = (one.keep_beating(), two.keep_beating());
    world.ns.published_as_ready("greeter", &["10.1.0.1", "10.1.0.2"]).await;
    world.stay_published(&["10.1.0.1", "10.1.0.2"], TTL * 3).await;
    let lease = world.ns.api::<Lease>().get("greeter.a").await.unwrap();
    assert_eq!(lease.metadata.resource_version, created);

    let last = one.last_accepted();
    drop(one);
    world.ns.instance("greeter", "a", "Expired", "TTLPassed").await;
    world.ns.published_as_ready("greeter", &["10.1.0.2"]).await;
    assert!(last.elapsed() >= TTL, "pruned after {:?}", last.elapsed());
    drop(two);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_a_gateway_that_is_cut_off_are_held() {
    let world = World::new("gateway-cut").await;
    let _operator = world.operator("first");
    let gateway = world.gateway("gw").await;
    world.register().await;
    let one = world.instance("a", "10.1.0.1", &gateway).await;
    one.accepted().await;
    let _one = one.keep_beating();
    world.ns.published_as_ready("greeter", &["10.1.0.1"]).await;
    // Only the gateway's own Lease still says that it lives.
    drop(gateway);
    let _lives = world.renew_the_lease_of("gw");
    let held = world.ns.instance("greeter", "a", "Held", "GatewayCutOff").await;
    let message = held.message;
    assert!(message.contains("gateway gw,"), "{message}");
    world.stay_published(&["10.1.0.1"], TTL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_after_a_crash_prunes_no_living_instance_and_accepts_beats() {
    let world = World::new("gateway-crash").await;
    let first = world.operator("first");
    let gateway = world.gateway("gw").await;
    world.register().await;
    let one = world.instance("a", "10.1.0.1", &gateway).await;
    let two = world.instance("b", "10.1.0.2", &gateway).await;
    one.accepted().await;
    two.accepted().await;
    let (_one, two) = (one.keep_beating(), two.keep_beating());
    world.ns.published_as_ready("greeter", &["10.1.0.1", "10.1.0.2"]).await;
    let second = world.operator("second");
    // The second one hears the gateway before the first one dies.
    eventually("the second one takes part", async || {
        second.logged().contains("the stream is open").then_some(())
    })
    .await;
    first.kill();
    drop(two);
    eventually("the second one leads", async || {
        let lease = world.ns.api::<Lease>().get("beatkeeper").await.unwrap();
        lease.spec?.holder_identity?.starts_with("second").then_some(())
    })
    .await;
    world.stay_published(&["10.1.0.1"], TTL * 3).await;
    world.ns.published_as_ready("greeter", &["10.1.0.1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_tell_the_ttl_of_an_edit_and_so_they_do_under_the_next_leader() {
    let world = World::new("gateway-edit").await;
    let first = world.operator("first");
    let gateway = world.gateway("gw").await;
    world.register().await;
    let instance = world.instance("a", "10.1.0.1", &gateway).await;
    instance.accepted().await;
    let told = async |ttl: &str| {
        eventually(&format!("an answer says {ttl}"), async || {
            let answer = instance.beat().await.ok()?;
            (answer.metadata.annotations?.get(TTL_ANNOTATION)? == ttl).then_some(())
        })
        .await;
    };
    world.ns.patch::<ServiceRegistration>("greeter", json!({ "spec": { "ttl": "7s" } })).await;
    told("7s").await;

    let second = world.operator("second");
    eventually("the second one takes part", async || {
        second.logged().contains("the stream is open").then_some(())
    })
    .await;
    first.kill();
    // The instance has a verdict of the first one, so nothing but the edit makes the second one judge.
    world.ns.patch::<ServiceRegistration>("greeter", json!({ "spec": { "ttl": "8s" } })).await;
    told("8s").await;
}

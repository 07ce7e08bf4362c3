//! The main job: publish what beats, prune what stops, and leave the others alone.

use std::time::Duration;

use crate::support::Shop;

const INTERVAL: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn of_five_instances_the_silent_one_is_pruned_and_the_others_stay() {
    let shop = Shop::open("story").await;
    let _operator = shop.operator();
    shop.greeter().await;
    let mut beats = shop.beats("greeter");
    for n in 1..=5 {
        let lease = beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}"));
        beats.start(&lease, INTERVAL).await;
    }
    let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"];
    shop.published_as_ready("greeter", &all).await;
    beats.die("vm-3");
    shop.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2", "192.0.2.4", "192.0.2.5"]).await;
    let status = shop.instance("greeter", "vm-3", "Expired", "TTLPassed").await;
    assert_eq!(status.message, "no beat for its ttl of 3s");

    beats.keep_beating("vm-3", INTERVAL);
    shop.published_as_ready("greeter", &all).await;
    beats.leave("vm-4").await;
    shop.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.5"]).await;
    beats.annotate("vm-5", "beatkeeper.dev/cordoned", Some("bad disk")).await;
    shop.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;
    let status = shop.instance("greeter", "vm-5", "Cordoned", "Cordoned").await;
    assert_eq!(status.message, "taken out by an operator: bad disk");
}

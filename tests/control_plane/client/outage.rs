//! The API server is away for ten ttls. Then all instances come back to it without being throttled
//! or overloading it.

use std::time::{Duration, Instant};

use beatkeeper_client::{Change, Discovery};
use futures::StreamExt;
use serde_json::json;

use super::{address, fleet, fleet::Fleet};
use crate::support::{
    TestNamespace,
    chaos::{Scale, turn},
    eventually,
    namespace::PATIENCE,
};

/// The number of these moments in each tenth of a window that begins with the first one. The last
/// number counts those after the window.
fn tenths(moments: &[Instant], window: Duration) -> [usize; 11] {
    let first = moments.iter().min().unwrap();
    let mut counts = [0; 11];
    for moment in moments {
        let tenth = (*moment - *first).div_duration_f64(window / 10);
        counts[(tenth as usize).min(10)] += 1;
    }
    counts
}

/// The most of these moments that lie within `time` of each other.
fn most_within(moments: &[Instant], time: Duration) -> usize {
    let with = |first: &Instant| {
        moments.iter().filter(|it| (*first..=*first + time).contains(*it)).count()
    };
    moments.iter().map(with).max().unwrap_or_default()
}

/// Panics if more than half of all come within a tenth of the window over which they should spread. While the process
/// stands still, all that is due waits, and then comes at once, so it may be more by that share of the window.
fn are_spread(what: &str, moments: &[Instant], window: Duration, stood_still: Duration) {
    let together = window / 10 + stood_still;
    if together > window / 2 {
        println!(
            "\n{what}: the machine is too busy to show it: it stood still for {stood_still:?}"
        );
        return;
    }
    let (counts, most) = (tenths(moments, window), most_within(moments, window / 10));
    println!("\n{what}, by tenths of {window:?}, and later: {counts:?}; at most {most} together");
    let share = 0.4 + together.div_duration_f64(window);
    let bound = share * moments.len() as f64;
    assert!(most as f64 <= bound, "{what}: {most} of {} together", moments.len());
}

/// Awaits a future. Returns its output, and the longest time for which this process stood still meanwhile.
async fn watched<T>(future: impl Future<Output = T>) -> (T, Duration) {
    const TICK: Duration = Duration::from_millis(5);
    let mut future = std::pin::pin!(future);
    let mut longest = Duration::ZERO;
    loop {
        let began = Instant::now();
        tokio::select! {
            output = &mut future => return (output, longest),
            () = tokio::time::sleep(TICK) => {}
        }
        longest = longest.max(began.elapsed().saturating_sub(TICK));
    }
}

async fn away_for_ten_ttls(Scale { instances, ttl, interval, .. }: Scale) {
    let plane = turn().await;
    let ns = TestNamespace::new_on(*plane, "client-outage").await;
    let spec = json!({
        "ttl": format!("{}ms", ttl.as_millis()),
        "interval": format!("{}ms", interval.as_millis()),
        "ports": [{ "name": "grpc", "port": 80, "targetPort": 8080 }],
    });
    ns.register("greeter", spec).await;
    let _operator = ns.operator();
    let fleet = Fleet::start(&ns, instances).await;
    let config = ns.plane.admin_config("fleet-test").unwrap();
    let discovery = Discovery::with_config(config.clone(), Some(ns.name.clone())).unwrap();
    let mut changes = discovery.watch("greeter").await.unwrap();
    for _ in 0..instances {
        let change = changes.next().await.unwrap();
        assert!(matches!(change, Change::Created(_)), "{change:?}");
    }

    plane.api_server().kill().await.unwrap();
    tokio::time::sleep(10 * ttl).await;
    let back = Instant::now();
    plane.api_server().start().await.unwrap();
    let twice = eventually("each has beaten twice since", async || {
        let beats: Vec<_> = fleet.diaries().map(|write_log| write_log.beats_since(back)).collect();
        beats.iter().all(|beats| beats.len() > 1).then_some(beats)
    });
    let (beats, stood_still) = watched(twice).await;
    // A wrong decision takes that long to show.
    tokio::time::sleep(ttl + interval).await;
    fleet.was_always_there();
    let nth = |n: usize| beats.iter().map(|beats| beats[n]).collect::<Vec<_>>();
    are_spread("first beats after the return", &nth(0), (ttl - interval) / 4, stood_still);
    are_spread("second beats", &nth(1), interval, stood_still);

    // A client that follows the instances has seen no instance go before another came.
    let (newcomer, _) = fleet::start(&ns, instances, config).await;
    let change = tokio::time::timeout(PATIENCE, changes.next()).await.unwrap().unwrap();
    let came = matches!(&change, Change::Created(one) if one.address == address(instances));
    assert!(came, "{change:?}");
    newcomer.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_of_ten_ttls_none_of_sixty_is_pruned_and_all_come_back_spread() {
    away_for_ten_ttls(Scale { instances: 60, ..Scale::thirty(1) }).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos"]
async fn an_outage_of_ten_ttls_with_five_hundred_instances_in_full() {
    let (ttl, interval) = (Duration::from_secs(6), Duration::from_secs(3));
    away_for_ten_ttls(Scale { instances: 500, ttl, interval, ..Scale::thirty(1) }).await;
}

//! Many instances.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::{Fixture, Published, ServiceObserver};

const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

fn name(n: usize) -> String {
    format!("vm-{n}")
}

fn address(n: usize) -> String {
    format!("198.18.{}.{}", n / 200, n % 200 + 1)
}

fn instances(range: std::ops::Range<usize>) -> impl Iterator<Item = (String, String)> {
    range.map(|n| (name(n), address(n)))
}

fn addresses(range: std::ops::Range<usize>) -> BTreeSet<String> {
    range.map(address).collect()
}

/// The sizes of the slices, the largest first.
fn sizes(published: &Published) -> Vec<usize> {
    let mut sizes: Vec<_> = published.slices.iter().map(|slice| slice.endpoints.len()).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes
}

/// Checks that no slice has more than 100 endpoints, and that any two slices have more than 100
/// together, in whatever order the instances came. As in Kubernetes itself, a new slice is created
/// only for endpoints that fit in no other. Returns the number of slices.
fn packed(published: &Published, endpoints: usize) -> usize {
    let sizes = sizes(published);
    assert_eq!(sizes.iter().sum::<usize>(), endpoints);
    assert!(sizes[0] <= 100, "{sizes:?}");
    let smallest: usize = sizes.iter().rev().take(2).sum();
    assert!(sizes.len() == 1 || smallest > 100, "{sizes:?}");
    sizes.len()
}

fn over_capacity(published: &Published) -> Option<&str> {
    let annotations = published.endpoints.as_ref()?.metadata.annotations.as_ref()?;
    annotations.get(OVER_CAPACITY).map(String::as_str)
}

async fn all_published(fixture: &Fixture, all: &BTreeSet<String>) -> Published {
    fixture
        .publishes(&format!("all {} are published", all.len()), |published| {
            published.ready() == *all && published.in_endpoints() == *all
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_250_instances_160_leave_and_no_survivor_ever_blinks() {
    let fixture = Fixture::new("many", json!({})).await;
    fixture.join_all(instances(0..250)).await;
    let published = all_published(&fixture, &addresses(0..250)).await;
    let before = packed(&published, 250);
    let observer = ServiceObserver::of(&fixture, "greeter").await;

    // The survivors are spread over all slices.
    let stays = |n: &usize| n % 25 < 9;
    let survivors: BTreeSet<String> = (0..250).filter(stays).map(address).collect();
    assert_eq!(survivors.len(), 90);
    fixture.quit_all((0..250).filter(|n| !stays(n)).map(name)).await;
    let published = all_published(&fixture, &survivors).await;
    assert!(sizes(&published).len() <= before, "a departure makes no new slice");
    observer.sees(&survivors).await;
    observer.never_missed(&survivors);

    // The number grows again, to more than there were before.
    fixture.join_all(instances(250..450)).await;
    let all: BTreeSet<String> = survivors.iter().cloned().chain(addresses(250..450)).collect();
    let published = all_published(&fixture, &all).await;
    assert!(sizes(&published)[0] <= 100, "{:?}", sizes(&published));
    observer.sees(&all).await;
    observer.never_missed(&survivors);
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_beyond_a_thousand_are_truncated_and_a_newcomer_evicts_no_address() {
    let fixture = Fixture::new("thousand", json!({})).await;
    // Lower addresses are kept for new instances, which would come first if sorted.
    fixture.join_all(instances(10..1010)).await;
    let thousand = addresses(10..1010);
    let published = all_published(&fixture, &thousand).await;
    assert_eq!(over_capacity(&published), None);
    packed(&published, 1000);
    let observer = ServiceObserver::of(&fixture, "greeter").await;

    fixture.join(&name(0), &address(0)).await;
    let all: BTreeSet<String> = thousand.iter().cloned().chain([address(0)]).collect();
    let published = fixture
        .publishes("Endpoints are truncated", |now| {
            over_capacity(now) == Some("truncated") && now.ready() == all
        })
        .await;
    let listed = published.in_endpoints();
    assert_eq!(listed.len(), 1000);
    let evicted: Vec<_> = thousand.difference(&listed).collect();
    assert!(evicted.is_empty(), "{evicted:?} were listed");

    // One instance leaves, and a new one takes its place.
    fixture.quit(&name(500)).await;
    let rest: BTreeSet<String> = all.iter().filter(|it| **it != address(500)).cloned().collect();
    let published = all_published(&fixture, &rest).await;
    assert_eq!(over_capacity(&published), None);
    fixture.quit(&name(501)).await;
    let rest: BTreeSet<String> = rest.iter().filter(|it| **it != address(501)).cloned().collect();
    let published = all_published(&fixture, &rest).await;
    assert_eq!(over_capacity(&published), None);
    observer.sees(&rest).await;
    let stayed: BTreeSet<String> = rest.iter().filter(|it| **it != address(0)).cloned().collect();
    assert_eq!(stayed.len(), 998);
    observer.never_missed(&stayed);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_five_hundred_instances_are_in_slices_of_a_hundred_at_most() {
    let fixture = Fixture::new("thousands", json!({})).await;
    fixture.join_all(instances(0..2500)).await;
    let all = addresses(0..2500);
    let published = fixture
        .publishes("all 2500 are in slices", |now| {
            now.ready() == all && over_capacity(now) == Some("truncated")
        })
        .await;
    assert_eq!(published.address_ports().len(), 2500, "each once");
    packed(&published, 2500);
    assert_eq!(published.in_endpoints().len(), 1000);
    fixture.counts(2500).await;
    let listed = fixture.registration("greeter").await.status.unwrap().instances.len();
    assert_eq!(listed, 100);

    fixture.quit_all((0..1600).map(name)).await;
    let published = all_published(&fixture, &addresses(1600..2500)).await;
    assert_eq!(over_capacity(&published), None);
    fixture.counts(900).await;
}

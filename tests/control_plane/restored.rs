//! The store is rolled back to a backup while the operator and all instances keep running.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use beatkeeper_api::heartbeat;
use beatkeeper_cluster::Options;
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::ConfigMap, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::{Operator, TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(3);
/// The number of versions that the store loses in the rollback, in addition to the beats.
const FORGOTTEN: usize = 1500;

/// Instances that beat as clients do: if its Lease is gone, an instance creates it again.
struct Hearts {
    ns: TestNamespace,
    beating: BTreeMap<u8, JoinHandle<()>>,
}

impl Hearts {
    fn start(&mut self, number: u8) {
        let beats = self.ns.beats("greeter");
        let lease = beats.outside(&format!("vm-{number}"), &address(number));
        let name = heartbeat::lease_name("greeter", &format!("vm-{number}"));
        let leases: Api<Lease> = self.ns.api();
        let heart = tokio::spawn(async move {
            let params = PatchParams::default();
            loop {
                let patch = Patch::Merge(heartbeat::beat_patch(Timestamp::now()));
                let beat = leases.patch(&name, &params, &patch);
                let result = tokio::time::timeout(INTERVAL, beat).await;
                if matches!(&result, Ok(Err(kube::Error::Api(status))) if status.code == 404) {
                    let mut anew = lease.clone();
                    let spec = anew.spec.as_mut().unwrap();
                    spec.renew_time = Some(MicroTime(Timestamp::now()));
                    let _ = leases.create(&PostParams::default(), &anew).await;
                }
                // A failed beat is retried soon, as clients do.
                let failed = !matches!(result, Ok(Ok(_)));
                tokio::time::sleep(if failed { INTERVAL / 5 } else { INTERVAL }).await;
            }
        });
        self.beating.insert(number, heart);
    }

    fn kill(&mut self, number: u8) {
        self.beating.remove(&number).unwrap().abort();
    }

    fn living(&self) -> BTreeSet<String> {
        self.beating.keys().map(|number| address(*number)).collect()
    }

    async fn published(&self) {
        let living = self.living();
        let living: Vec<&str> = living.iter().map(String::as_str).collect();
        self.ns.published_as_ready("greeter", &living).await;
    }
}

impl Drop for Hearts {
    fn drop(&mut self) {
        self.beating.values().for_each(JoinHandle::abort);
    }
}

fn address(number: u8) -> String {
    format!("192.0.2.{number}")
}

/// Polls whether these addresses are in the slices, even when no watch would show it.
struct Lookout {
    missed: Arc<Mutex<BTreeSet<String>>>,
    task: JoinHandle<()>,
}

impl Lookout {
    fn keep(ns: &TestNamespace, expected: BTreeSet<String>) -> Self {
        let missed = Arc::<Mutex<BTreeSet<String>>>::default();
        let (slices, noted) = (ns.api::<EndpointSlice>(), missed.clone());
        let task = tokio::spawn(async move {
            let of_service = ListParams::default().labels("kubernetes.io/service-name=greeter");
            loop {
                if let Ok(list) = slices.list(&of_service).await {
                    let endpoints = list.items.into_iter().flat_map(|slice| slice.endpoints);
                    let there: BTreeSet<String> = endpoints.flat_map(|one| one.addresses).collect();
                    noted.lock().unwrap().extend(expected.difference(&there).cloned());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { missed, task }
    }

    fn missed(self) -> BTreeSet<String> {
        self.task.abort();
        self.missed.lock().unwrap().clone()
    }
}

/// A separate control plane, which ends with the test.
async fn ns() -> TestNamespace {
    let plane = crate::support::crd::install_on_own(Options::default()).await;
    TestNamespace::new_on(plane, "restored").await
}

impl TestNamespace {
    async fn write_elsewhere(&self) {
        let maps = self.api::<ConfigMap>();
        let patch = |n: usize| {
            let maps = &maps;
            async move {
                let map = json!({ "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": { "name": "elsewhere" }, "data": { "n": n.to_string() } });
                let params = PatchParams::apply("test").force();
                maps.patch("elsewhere", &params, &Patch::Apply(map)).await.unwrap();
            }
        };
        patch(0).await;
        stream::iter(1..FORGOTTEN).for_each_concurrent(8, patch).await;
    }
}

async fn conflicts(operator: &Operator) -> f64 {
    let scrape = operator.scrape().await;
    let writes = scrape.all("beatkeeper_api_writes_total");
    writes.iter().filter(|(series, _)| series.contains("conflict")).map(|(_, n)| n).sum()
}

/// Takes a backup while twelve instances beat, and restores it. One of them dies and leaves after
/// the backup, one more registers after the backup, one dies with the restore, and one registers
/// after the restore.
async fn goes_back(operators: Vec<Operator>, ns: TestNamespace) -> (Vec<Operator>, Hearts) {
    ns.greeter().await;
    let mut hearts = Hearts { ns: ns.clone(), beating: BTreeMap::new() };
    (1..=12).for_each(|number| hearts.start(number));
    hearts.published().await;
    let backup = ns.plane.back_up().await.unwrap();
    hearts.kill(3);
    hearts.start(13);
    hearts.published().await;
    ns.write_elsewhere().await;

    hearts.kill(2);
    let in_backup =
        hearts.living().intersection(&(1..=12).map(address).collect()).cloned().collect();
    let lookout = Lookout::keep(&ns, in_backup);
    ns.plane.restore(&backup).await.unwrap();
    hearts.start(14);
    hearts.published().await;
    assert_eq!(lookout.missed(), BTreeSet::new(), "living instances stay");
    let told = "the store has gone back";
    eventually("each replica notices", async || {
        operators.iter().all(|one| one.logged().contains(told)).then_some(())
    })
    .await;
    (operators, hearts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_restored_costs_no_living_instance_its_place_and_brings_no_dead_one_back() {
    let ns = ns().await;
    let operator = ns.operator_with(&["--metrics-bind-address=127.0.0.1:0"]);
    let (mut operators, mut hearts) = goes_back(vec![operator], ns.clone()).await;
    let operator = operators.pop().unwrap();
    let rollbacks = operator.scrape().await.value("beatkeeper_store_rollbacks_total");
    assert!(rollbacks >= 1.0, "{rollbacks}");

    // The operator continues normally: there are no endless conflicts, and the next dead instance
    // leaves.
    let before = conflicts(&operator).await;
    let lookout = Lookout::keep(&ns, hearts.living());
    tokio::time::sleep(2 * TTL).await;
    assert_eq!(conflicts(&operator).await, before);

    // The state that it keeps for the next process comes from this history.
    operator.kill();
    let operator = ns.operator();
    eventually("it publishes again", async || {
        operator.logged().contains("publishing begins").then_some(())
    })
    .await;
    tokio::time::sleep(2 * TTL).await;
    assert_eq!(lookout.missed(), BTreeSet::new());
    hearts.kill(5);
    hearts.published().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_both_notice_that_the_store_was_restored_and_one_goes_on() {
    let ns = ns().await;
    let namespace = format!("--leader-elect-resource-namespace={}", ns.name);
    let ranges = ns.ranges();
    let mut flags: Vec<&str> = ranges.iter().map(String::as_str).collect();
    flags.extend(["--leader-elect", &namespace, "--leader-elect-lease-duration=3s"]);
    flags.extend(["--leader-elect-renew-deadline=2s", "--leader-elect-retry-period=500ms"]);
    let replica = |name| {
        let kubeconfig = ns.plane.kubeconfig();
        Operator::start_as(Some(name), &kubeconfig, &ns.name, &flags)
    };
    let operators = vec![replica("first"), replica("second")];
    // A replica that begins after the rollback has nothing to notice.
    eventually("each replica has read the store", async || {
        let ready = |one: &Operator| one.logged().contains("taking part in the election");
        operators.iter().all(ready).then_some(())
    })
    .await;
    let (operators, mut hearts) = goes_back(operators, ns.clone()).await;
    hearts.kill(6);
    hearts.published().await;
    drop(operators);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_restored_from_a_backup_publishes_no_instance_until_it_beats() {
    let ns = TestNamespace::new("put-back").await;
    let _operator = ns.operator();
    ns.patient_greeter().await;
    let beats = ns.beats("greeter");
    let mut lease = beats.outside("vm-1", "192.0.2.1");
    let hours_ago = Timestamp::now() - SignedDuration::from_hours(3);
    lease.spec.as_mut().unwrap().renew_time = Some(MicroTime(hours_ago));
    beats.create(&lease).await;
    beats.create(&beats.outside("vm-2", "192.0.2.2")).await;
    ns.published_as_ready("greeter", &["192.0.2.2"]).await;
    let told = ns.instance("greeter", "vm-1", "Waiting", "AwaitingBeat").await;
    assert!(told.message.contains("put back"), "{}", told.message);
    // The renewTime comes from the instance's own clock, which is slow.
    beats.beat_at("vm-1", hours_ago + SignedDuration::from_secs(1)).await;
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
}

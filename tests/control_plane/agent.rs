//! `beatkeeper agent` as a process.

use std::process::Stdio;
use std::time::Duration;

use beatkeeper_api::{ServiceRegistration, heartbeat};
use beatkeeper_cluster::Options;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{
    DeleteParams, DynamicObject, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::{Api, ResourceExt, discovery::ApiResource, runtime::wait};
use serde_json::json;
use tokio::time::timeout;

use self::fixture::{LEASE, PATIENCE, TestNamespace};
use crate::support::crd::{install, install_on_own};

mod fixture;
mod permission;

/// The renewTimes of the next `count` changes of a Lease, exactly as the API server sends them.
async fn renew_times(ns: &TestNamespace, count: usize) -> Vec<String> {
    let resource = ApiResource::erase::<Lease>(&());
    let leases: Api<DynamicObject> = Api::namespaced_with(ns.client.clone(), &ns.name, &resource);
    let parameters = WatchParams::default().fields(&format!("metadata.name={LEASE}"));
    let version = leases.list(&Default::default()).await.unwrap().metadata.resource_version;
    let watch = leases.watch(&parameters, &version.unwrap()).await.unwrap();
    let times = watch
        .try_filter_map(|event| async {
            Ok(match event {
                WatchEvent::Modified(lease) => {
                    Some(lease.data["spec"]["renewTime"].as_str().unwrap().to_owned())
                }
                _ => None,
            })
        })
        .map(Result::unwrap)
        .take(count)
        .collect::<Vec<_>>();
    timeout(PATIENCE, times).await.expect("beats")
}

#[tokio::test]
async fn an_outside_instance_makes_a_lease_with_every_field_of_the_contract() {
    let ns = TestNamespace::new().await;
    let mut agent = ns.agent(&["--instance", "vm-1", "--address", "192.0.2.1"]);
    let line = agent.says("beating as").await;
    let expected = format!("beating as vm-1 for {}/greeter every 200ms (ttl 2s)", ns.name);
    assert_eq!(line, expected);
    let lease = ns.leases().get(LEASE).await.unwrap();
    assert_eq!(lease.labels()[heartbeat::REGISTRATION_LABEL], "greeter");
    assert_eq!(lease.annotations()[heartbeat::ADDRESSES_ANNOTATION], "192.0.2.1");
    assert_eq!(lease.metadata.owner_references, None);
    let spec = lease.spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("vm-1"));
    assert_eq!(spec.lease_duration_seconds, Some(2));
    assert!(spec.renew_time.is_some());
}

#[tokio::test]
async fn beats_come_at_the_interval_with_times_that_only_grow() {
    let ns = TestNamespace::new().await;
    let mut agent = ns.vm();
    agent.says("beating as").await;
    let mut spans: Vec<Duration> = Vec::new();
    // 20 intervals of 200 ms. A busy machine may delay beats further, though not at all times.
    while spans.last().is_none_or(|span| *span >= Duration::from_secs(6)) {
        assert!(spans.len() < 5, "20 beats took {spans:?}");
        let times = renew_times(&ns, 21).await;
        for time in &times {
            assert_eq!(time.len(), "2026-11-22T10:00:00.000000Z".len(), "{time}");
        }
        assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
        let at = |text: &String| text.parse::<jiff::Timestamp>().unwrap();
        let span = at(&times[20]).duration_since(at(&times[0])).unsigned_abs();
        assert!(span >= Duration::from_millis(3700), "20 beats took {span:?}");
        spans.push(span);
    }
}

#[tokio::test]
async fn sigterm_deregisters_and_exits_with_zero() {
    let ns = TestNamespace::new().await;
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut agent = ns.vm();
        agent.says("beating as").await;
        assert!(ns.leases().get_opt(LEASE).await.unwrap().is_some());
        agent.signal(signal);
        agent.says("deregistered: deleted the Lease").await;
        assert_eq!(agent.exit_code().await, Some(0));
        assert_eq!(ns.leases().get_opt(LEASE).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_restart_after_a_crash_takes_the_lease_over_and_keeps_the_cordon() {
    let ns = TestNamespace::new().await;
    let mut agent = ns.vm();
    agent.says("beating as").await;
    agent.signal(rustix::process::Signal::KILL);
    agent.exit_code().await;
    let annotations = json!({ "metadata": { "annotations": {
        heartbeat::CORDONED_ANNOTATION: "bad disk",
        heartbeat::HEALTH_ANNOTATION: "Draining",
    } } });
    let left = ns
        .leases()
        .patch(LEASE, &PatchParams::default(), &Patch::Merge(annotations))
        .await
        .unwrap();

    let mut agent = ns.vm();
    agent.says("with the Lease of its earlier life").await;
    let taken = ns.leases().get(LEASE).await.unwrap();
    assert_eq!(taken.uid(), left.uid());
    // A person wrote both annotations, and not the earlier process.
    assert_eq!(taken.annotations()[heartbeat::CORDONED_ANNOTATION], "bad disk");
    assert_eq!(taken.annotations()[heartbeat::HEALTH_ANNOTATION], "Draining");
    assert!(taken.spec.unwrap().renew_time.unwrap().0 > left.spec.unwrap().renew_time.unwrap().0);
}

#[tokio::test]
async fn a_lease_that_is_deleted_or_stripped_of_its_label_is_claimed_again() {
    let ns = TestNamespace::new().await;
    let mut agent = ns.vm();
    agent.says("beating as").await;
    let first = ns.leases().get(LEASE).await.unwrap().uid().unwrap();
    ns.leases().delete(LEASE, &DeleteParams::default()).await.unwrap();
    agent.says("claiming it again").await;
    agent.says("beating as").await;
    let second = ns.leases().get(LEASE).await.unwrap().uid().unwrap();
    assert_ne!(second, first);

    let strip = json!({ "metadata": { "labels": null } });
    ns.leases().patch(LEASE, &PatchParams::default(), &Patch::Merge(strip)).await.unwrap();
    agent.says("claiming it again").await;
    agent.says("beating as").await;
    let lease = ns.leases().get(LEASE).await.unwrap();
    assert_eq!(lease.labels()[heartbeat::REGISTRATION_LABEL], "greeter");
    assert_eq!(lease.uid(), Some(second));
}

#[tokio::test]
async fn a_pod_owns_its_lease_and_replaces_that_of_an_earlier_pod_of_its_name() {
    let plane = install_on_own(Options::default()).await;
    let ns = TestNamespace::on(plane).await;
    ns.register("2s", "200ms").await;
    let first = ns.pod("greeter-0").await;
    let mut agent = ns.agent(&["--pod", "greeter-0"]);
    agent.says("beating as greeter-0").await;
    let left = ns.leases().get("greeter.greeter-0").await.unwrap();
    let owner = &left.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((&*owner.kind, &*owner.name), ("Pod", "greeter-0"));
    assert_eq!(Some(&owner.uid), first.metadata.uid.as_ref());
    agent.signal(rustix::process::Signal::KILL);
    agent.exit_code().await;

    // This is what a Lease looks like when its Pod was deleted and created again under the same
    // name. The garbage collector is stopped because it would remove the Lease before the agent
    // does.
    plane.controller_manager().kill().await.unwrap();
    let owners = json!({ "metadata": { "ownerReferences": [{
        "apiVersion": "v1", "kind": "Pod", "name": "greeter-0", "uid": "an-earlier-uid",
    }] } });
    let patched = ns
        .leases()
        .patch("greeter.greeter-0", &PatchParams::default(), &Patch::Merge(owners))
        .await
        .unwrap();
    let mut agent = ns.agent(&["--pod", "greeter-0"]);
    agent.says("in place of an earlier Pod's").await;
    let anew = ns.leases().get("greeter.greeter-0").await.unwrap();
    assert_ne!(anew.uid(), patched.uid());
    let owner = &anew.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(Some(&owner.uid), first.metadata.uid.as_ref());
}

#[tokio::test]
async fn a_lease_of_another_owner_is_left_alone_and_explained() {
    let ns = TestNamespace::new().await;
    let leader = serde_json::from_value(json!({
        "metadata": { "name": LEASE },
        "spec": { "holderIdentity": "a-leader" },
    }));
    let made = ns.leases().create(&PostParams::default(), &leader.unwrap()).await.unwrap();
    let mut agent = ns.vm();
    agent.says("it is no heartbeat of this registration; delete that Lease").await;
    agent.signal(rustix::process::Signal::TERM);
    assert_eq!(agent.exit_code().await, Some(0));
    assert_eq!(ns.leases().get(LEASE).await.unwrap(), made);
}

#[tokio::test]
async fn it_waits_for_a_registration_that_does_not_exist_yet() {
    let ns = TestNamespace::without_registration().await;
    let mut agent = ns.vm();
    agent.says("/greeter does not exist yet; retrying in").await;
    ns.register("2s", "200ms").await;
    agent.says("beating as vm-1").await;
}

#[tokio::test]
async fn it_stops_at_once_while_it_waits() {
    let ns = TestNamespace::without_registration().await;
    let mut agent = ns.vm();
    agent.says("does not exist yet").await;
    agent.signal(rustix::process::Signal::TERM);
    agent.says("there was nothing to deregister").await;
    assert_eq!(agent.exit_code().await, Some(0));
}

#[tokio::test]
async fn it_follows_a_registration_that_changes() {
    let ns = TestNamespace::new().await;
    let mut agent = ns.agent(&["--instance", "vm-1", "--interval", "1s"]);
    agent.says("an interval of 1s is slower than the registration asks for").await;
    agent.says("beating as").await;
    let registrations: Api<ServiceRegistration> = Api::namespaced(ns.client.clone(), &ns.name);
    let slower = json!({ "spec": { "ttl": "8s", "interval": "2s" } });
    let parameters = PatchParams::default();
    registrations.patch("greeter", &parameters, &Patch::Merge(slower)).await.unwrap();
    agent.says("now beating every 1s (ttl 8s)").await;
    let told = wait::await_condition(ns.leases(), LEASE, |lease: Option<&Lease>| {
        lease.and_then(|lease| lease.spec.as_ref()?.lease_duration_seconds) == Some(8)
    });
    timeout(PATIENCE, told).await.expect("the Lease follows").unwrap();
}

#[tokio::test]
async fn an_outage_is_outlived_and_a_stop_during_one_is_bounded() {
    let plane = install_on_own(Options::default()).await;
    let ns = TestNamespace::on(plane).await;
    ns.register("2s", "200ms").await;
    let (mut patient, mut hasty) = (ns.vm(), ns.agent(&["--instance", "vm-2"]));
    patient.says("beating as").await;
    hasty.says("beating as").await;

    plane.api_server().suspend().await.unwrap();
    patient.says("no answer within 250ms; retrying in").await;
    plane.api_server().resume().await.unwrap();
    patient.says("beating again").await;

    plane.api_server().suspend().await.unwrap();
    patient.says("no answer within 250ms").await;
    let asked = std::time::Instant::now();
    patient.signal(rustix::process::Signal::TERM);
    hasty.signal(rustix::process::Signal::TERM);
    hasty.says("SIGTERM: stopping").await;
    hasty.signal(rustix::process::Signal::INT);
    assert_eq!(hasty.exit_code().await, Some(130));
    assert_eq!(patient.exit_code().await, Some(1));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn the_printed_crd_is_what_the_api_server_takes() {
    let plane = install().await;
    let mut crd = std::process::Command::new(env!("CARGO_BIN_EXE_beatkeeper"))
        .arg("crd")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let applied = plane
        .kubectl()
        .args(["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"])
        .stdin(crd.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(crd.wait().unwrap().success());
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
}

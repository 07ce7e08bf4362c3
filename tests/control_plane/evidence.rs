//! Silence alone does not prune an instance. The path of the beats must be proven (L3), and it must
//! not be broken for nearly all instances (L6). A process remembers what the process before it has
//! proven (L5).

use std::time::{Duration, Instant};

use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    coordination::v1::Lease,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

use crate::{
    restart::{INTERVAL, beating, begun, published},
    support::{Operator, TestNamespace, eventually},
};

/// While this exists, no probe can be written in the namespace.
struct Refusal<'a>(&'a TestNamespace);

impl<'a> Refusal<'a> {
    async fn put_up(ns: &'a TestNamespace) -> Self {
        let name = &ns.name;
        let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": name },
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } },
                    "resourceRules": [{
                        "apiGroups": ["coordination.k8s.io"], "apiVersions": ["v1"],
                        "operations": ["CREATE", "UPDATE"], "resources": ["leases"],
                    }],
                },
                "validations": [{
                    "expression": "!object.metadata.name.startsWith('beatkeeper-probe')",
                    "message": "no probes today",
                }],
            },
        }))
        .unwrap();
        let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": name },
            "spec": { "policyName": name, "validationActions": ["Deny"] },
        }))
        .unwrap();
        let policies = Api::<ValidatingAdmissionPolicy>::all(ns.client.clone());
        let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(ns.client.clone());
        policies.create(&PostParams::default(), &policy).await.unwrap();
        bindings.create(&PostParams::default(), &binding).await.unwrap();
        Self(ns)
    }

    /// Waits until the policy is in force, because the API server needs a moment.
    async fn takes_effect(operator: &Operator) {
        eventually("the probe is refused", async || {
            operator.logged().contains("the probe cannot be renewed").then_some(())
        })
        .await;
    }

    async fn take_down(self) {
        let all = Api::<ValidatingAdmissionPolicyBinding>::all(self.0.client.clone());
        all.delete(&self.0.name, &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_probe_cannot_be_written_no_instance_is_pruned_and_the_status_says_why() {
    let ns = TestNamespace::new("unproven").await;
    let operator = ns.operator();
    let mut beats = beating(&ns, 3).await;
    let observer = ns.observe("greeter").await;
    let refusal = Refusal::put_up(&ns).await;
    Refusal::takes_effect(&operator).await;
    beats.die("vm-3");
    let held = ns.instance("greeter", "vm-3", "Held", "PathUnproven").await;
    assert!(held.message.contains("no probes today"), "{}", held.message);
    let message = ns.condition("greeter", "PruningHeld", "True", "PathUnproven").await;
    assert!(message.starts_with("1 held; vm-3: its ttl has passed"), "{message}");
    assert_eq!(observer.left(), [] as [&str; 0]);
    refusal.take_down().await;
    observer.leaves("192.0.2.3").await.unwrap();
    ns.instance("greeter", "vm-3", "Expired", "TTLPassed").await;
    published(&ns, 2).await;
    assert_eq!(observer.left(), ["192.0.2.3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_changes_nothing_before_its_probe_is_proven() {
    let ns = TestNamespace::new("begins").await;
    let operator = ns.operator();
    let mut beats = beating(&ns, 2).await;
    let observer = ns.observe("greeter").await;
    let refusal = Refusal::put_up(&ns).await;
    Refusal::takes_effect(&operator).await;
    operator.kill();
    let operator = ns.operator();
    eventually("it waits for its probe", async || {
        operator.logged().contains("nothing is published before the probe").then_some(())
    })
    .await;
    beats.leave("vm-1").await;
    beats.start(&beats.outside("vm-3", "192.0.2.3"), INTERVAL).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    refusal.take_down().await;
    ns.published_as_ready("greeter", &["192.0.2.2", "192.0.2.3"]).await;
    assert_eq!(observer.left(), ["192.0.2.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_beats_stop_all_instances_are_held_until_beats_arrive_again() {
    let ns = TestNamespace::new("cut").await;
    let _operator = ns.operator();
    let mut beats = beating(&ns, 12).await;
    let observer = ns.observe("greeter").await;
    // No instance's beats arrive, as when a network policy cuts off the workloads.
    for n in 1..=12 {
        beats.die(&format!("vm-{n}"));
    }
    ns.instance("greeter", "vm-12", "Held", "PathBroken").await;
    // The first look may still find one of the last beats.
    let told = format!("beats due in namespace {} in the last 2s only 0 arrived", ns.name);
    eventually(&format!("the condition tells {told:?}"), async || {
        let message = ns.condition("greeter", "PruningHeld", "True", "PathBroken").await;
        message.contains(&told).then_some(())
    })
    .await;
    let status = eventually("all are held", async || {
        let status = ns.registration("greeter").await.status?;
        (status.held == 12).then_some(status)
    })
    .await;
    assert_eq!((status.ready, status.expired), (0, 0));
    let resumed = Instant::now();
    for n in 1..=11 {
        beats.keep_beating(&format!("vm-{n}"), INTERVAL);
    }
    // The instance that stays silent had a whole ttl from the recovery on.
    let left = observer.leaves("192.0.2.12").await.unwrap();
    assert!(left - resumed > Duration::from_secs(3), "{:?}", left - resumed);
    published(&ns, 11).await;
    assert_eq!(observer.left(), ["192.0.2.12"]);
    ns.instance("greeter", "vm-12", "Expired", "TTLPassed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_again_and_again_do_not_keep_a_dead_instance() {
    let ns = TestNamespace::new("crashes").await;
    let mut operator = ns.operator();
    ns.register("greeter", {
        let mut spec = TestNamespace::usual_spec();
        spec["ttl"] = json!("8s");
        spec
    })
    .await;
    let mut beats = ns.beats("greeter");
    for n in 1..=3 {
        let lease = beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}"));
        beats.start(&lease, INTERVAL).await;
    }
    published(&ns, 3).await;
    let observer = ns.observe("greeter").await;
    let died = beats.die("vm-3");
    // Each operator process runs for less than the ttl, so that none of them alone could prove the
    // silence.
    let mut restarts = 0;
    while observer.left().is_empty() {
        assert!(
            died.elapsed() < crate::support::namespace::PATIENCE,
            "the dead one lives on by restarts"
        );
        operator.kill();
        operator = ns.operator();
        begun(&operator).await;
        restarts += 1;
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    assert!(restarts > 1, "{restarts}");
    assert_eq!(observer.left(), ["192.0.2.3"]);
    published(&ns, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_is_a_lease_that_no_registration_takes_for_an_instance() {
    let ns = TestNamespace::new("probe").await;
    let _operator = ns.operator();
    let _beats = beating(&ns, 1).await;
    let leases: Api<Lease> = ns.api();
    let probe = eventually("there is a probe with a memory", async || {
        let all = leases.list(&ListParams::default()).await.unwrap().items;
        let name = |lease: &Lease| lease.metadata.name.clone().unwrap();
        let probe = all.into_iter().find(|lease| name(lease).starts_with("beatkeeper-probe-"))?;
        probe.metadata.annotations.clone()?.get("beatkeeper.dev/proven-time")?;
        Some(probe)
    })
    .await;
    let labels = probe.metadata.labels.unwrap();
    assert_eq!(labels["beatkeeper.dev/registration"], "probe.beatkeeper.dev");
    let first = probe.spec.unwrap().renew_time;
    eventually("it is renewed", async || {
        let now = leases.get(probe.metadata.name.as_ref().unwrap()).await.unwrap();
        (now.spec.unwrap().renew_time != first).then_some(())
    })
    .await;
    assert_eq!(ns.registration("greeter").await.status.unwrap().total, 1);
}

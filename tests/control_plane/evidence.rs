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
    support::{Operator, Shop, Vigil, eventually},
};

/// While this exists, no probe can be written in the namespace.
struct Refusal<'a>(&'a Shop);

impl<'a> Refusal<'a> {
    async fn put_up(shop: &'a Shop) -> Self {
        let name = &shop.namespace;
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
        let policies = Api::<ValidatingAdmissionPolicy>::all(shop.client.clone());
        let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(shop.client.clone());
        policies.create(&PostParams::default(), &policy).await.unwrap();
        bindings.create(&PostParams::default(), &binding).await.unwrap();
        Self(shop)
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
        all.delete(&self.0.namespace, &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_probe_cannot_be_written_no_instance_is_pruned_and_the_status_says_why() {
    let shop = Shop::open("unproven").await;
    let operator = shop.operator();
    let mut beats = beating(&shop, 3).await;
    let vigil = Vigil::keep(&shop, "greeter").await;
    let refusal = Refusal::put_up(&shop).await;
    Refusal::takes_effect(&operator).await;
    beats.die("vm-3");
    let held = shop.instance("greeter", "vm-3", "Held", "PathUnproven").await;
    assert!(held.message.contains("no probes today"), "{}", held.message);
    let message = shop.condition("greeter", "PruningHeld", "True", "PathUnproven").await;
    assert!(message.starts_with("1 held; vm-3: its ttl has passed"), "{message}");
    assert_eq!(vigil.left(), [] as [&str; 0]);
    refusal.take_down().await;
    vigil.leaves("192.0.2.3").await;
    shop.instance("greeter", "vm-3", "Expired", "TTLPassed").await;
    published(&shop, 2).await;
    assert_eq!(vigil.left(), ["192.0.2.3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_changes_nothing_before_its_probe_is_proven() {
    let shop = Shop::open("begins").await;
    let operator = shop.operator();
    let mut beats = beating(&shop, 2).await;
    let vigil = Vigil::keep(&shop, "greeter").await;
    let refusal = Refusal::put_up(&shop).await;
    Refusal::takes_effect(&operator).await;
    operator.kill();
    let operator = shop.operator();
    eventually("it waits for its probe", async || {
        operator.logged().contains("nothing is published before the probe").then_some(())
    })
    .await;
    beats.leave("vm-1").await;
    beats.start(&beats.outside("vm-3", "192.0.2.3"), INTERVAL).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    shop.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    refusal.take_down().await;
    shop.published_as_ready("greeter", &["192.0.2.2", "192.0.2.3"]).await;
    assert_eq!(vigil.left(), ["192.0.2.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_beats_stop_all_instances_are_held_until_beats_arrive_again() {
    let shop = Shop::open("cut").await;
    let _operator = shop.operator();
    let mut beats = beating(&shop, 12).await;
    let vigil = Vigil::keep(&shop, "greeter").await;
    // No instance's beats arrive, as when a network policy cuts off the workloads.
    for n in 1..=12 {
        beats.die(&format!("vm-{n}"));
    }
    shop.instance("greeter", "vm-12", "Held", "PathBroken").await;
    let message = shop.condition("greeter", "PruningHeld", "True", "PathBroken").await;
    assert!(
        message.contains(&format!(
            "beats due in namespace {} in the last 2s only 0 arrived",
            shop.namespace
        )),
        "{message}"
    );
    let status = eventually("all are held", async || {
        let status = shop.registration("greeter").await.status?;
        (status.held == 12).then_some(status)
    })
    .await;
    assert_eq!((status.ready, status.expired), (0, 0));
    let resumed = Instant::now();
    for n in 1..=11 {
        beats.keep_beating(&format!("vm-{n}"), INTERVAL);
    }
    // The instance that stays silent had a whole ttl from the recovery on.
    let left = vigil.leaves("192.0.2.12").await;
    assert!(left - resumed > Duration::from_secs(3), "{:?}", left - resumed);
    published(&shop, 11).await;
    assert_eq!(vigil.left(), ["192.0.2.12"]);
    shop.instance("greeter", "vm-12", "Expired", "TTLPassed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_again_and_again_do_not_keep_a_dead_instance() {
    let shop = Shop::open("crashes").await;
    let mut operator = shop.operator();
    shop.register("greeter", {
        let mut spec = Shop::usual_spec();
        spec["ttl"] = json!("8s");
        spec
    })
    .await;
    let mut beats = shop.beats("greeter");
    for n in 1..=3 {
        let lease = beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}"));
        beats.start(&lease, INTERVAL).await;
    }
    published(&shop, 3).await;
    let vigil = Vigil::keep(&shop, "greeter").await;
    let died = beats.die("vm-3");
    // Each operator process runs for less than the ttl, so that none of them alone could prove the
    // silence.
    let mut restarts = 0;
    while vigil.left().is_empty() {
        assert!(
            died.elapsed() < crate::support::shop::PATIENCE,
            "the dead one lives on by restarts"
        );
        operator.kill();
        operator = shop.operator();
        begun(&operator).await;
        restarts += 1;
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    assert!(restarts > 1, "{restarts}");
    assert_eq!(vigil.left(), ["192.0.2.3"]);
    published(&shop, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_is_a_lease_that_no_registration_takes_for_an_instance() {
    let shop = Shop::open("probe").await;
    let _operator = shop.operator();
    let _beats = beating(&shop, 1).await;
    let leases: Api<Lease> = shop.api();
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
    assert_eq!(shop.registration("greeter").await.status.unwrap().total, 1);
}

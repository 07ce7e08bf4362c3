//! An operator that is killed in the middle of an adoption loses no instance: the next operator
//! completes the adoption.

use beatkeeper_api::registration::ADOPT_ANNOTATION;
use k8s_openapi::api::{
    admissionregistration::v1::{
        ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding as Binding,
    },
    core::v1::ConfigMap,
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use super::MANAGED_BY;
use crate::support::{ServiceObserver, TestNamespace, eventually, observer::set};

/// An admission policy that refuses some of the writes of objects with our mark.
struct Obstacle<'a> {
    ns: &'a TestNamespace,
    name: String,
}

impl<'a> Obstacle<'a> {
    /// Refuses writes in this namespace of objects with our mark for which the CEL expression
    /// `refused` holds. The policy is in force when this returns.
    async fn put_up(ns: &'a TestNamespace, refused: &str) -> Self {
        let name = format!("obstacle-{}", ns.name);
        let ours = [MANAGED_BY, "endpoints.kubernetes.io/managed-by"].map(|label| {
            format!("object.metadata.?labels[?'{label}'].orValue('') == 'beatkeeper.dev'")
        });
        let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "namespaceSelector": {
                        "matchLabels": { "kubernetes.io/metadata.name": ns.name },
                    },
                    "resourceRules": [{
                        "apiGroups": ["", "discovery.k8s.io"], "apiVersions": ["v1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["endpoints", "endpointslices", "configmaps"],
                    }],
                },
                "validations": [{
                    "expression": format!(
                        "object.kind == 'ConfigMap' ? false : !(({}) && ({refused}))", ours.join(" || ")
                    ),
                    "message": "in the way",
                }],
            },
        }))
        .unwrap();
        let binding: Binding = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "policyName": name, "validationActions": ["Deny"] },
        }))
        .unwrap();
        let params = PostParams::default();
        Api::all(ns.client.clone()).create(&params, &policy).await.unwrap();
        Api::all(ns.client.clone()).create(&params, &binding).await.unwrap();
        let obstacle = Self { ns, name };
        obstacle.stands(true).await;
        obstacle
    }

    async fn stands(&self, stands: bool) {
        let maps: Api<ConfigMap> = self.ns.api();
        let probe = serde_json::from_value(json!({ "metadata": { "name": "probe" } })).unwrap();
        let try_only = PostParams { dry_run: true, ..PostParams::default() };
        eventually("the policy is in force, or no more", async || {
            let refused = maps.create(&try_only, &probe).await.is_err();
            (refused == stands).then_some(())
        })
        .await;
    }

    async fn take_down(self) {
        let params = DeleteParams::default();
        let bindings: Api<Binding> = Api::all(self.ns.client.clone());
        bindings.delete(&self.name, &params).await.unwrap();
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(self.ns.client.clone());
        policies.delete(&self.name, &params).await.unwrap();
        self.stands(false).await;
    }
}

/// The last write of an adoption.
const LAST: &str = "object.kind == 'Endpoints'";

/// Adopts two slices and mirrored Endpoints. The operator is killed after a certain write was
/// refused, and another operator completes the adoption.
async fn killed_when_refused(prefix: &str, refused: &str, taken: &[&str]) {
    let ns = TestNamespace::new(prefix).await;
    ns.hand_written(&["192.0.2.3", "192.0.2.4"]).await;
    ns.hand_written_slice("a-hand", &["192.0.2.1", "192.0.2.3"], 9001).await;
    ns.hand_written_slice("b-hand", &["192.0.2.2"], 9001).await;
    let observer = ServiceObserver::of(&ns, "greeter").await;
    let obstacle = Obstacle::put_up(&ns, refused).await;
    let operator = ns.operator();
    ns.annotated_greeter(ADOPT_ANNOTATION, "true").await;
    let message = ns.condition("greeter", "Reconciling", "True", "WriteFailed").await;
    assert!(message.contains("in the way"), "{message}");
    if refused != LAST {
        ns.condition("greeter", "Ready", "False", "AdoptionUnfinished").await;
    }
    operator.kill();
    ns.remembers(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]).await;
    let managers = ns.managers().await;
    for name in ["a-hand", "b-hand"] {
        let ours = if taken.contains(&name) { "beatkeeper.dev" } else { "staff" };
        assert_eq!(managers[name], ours, "{name}");
    }
    obstacle.take_down().await;
    let _operator = ns.operator();
    ns.all_ours().await;
    let all = set(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]);
    observer.sees(&all).await;
    observer.always_in_slices(&all);
    let published = ns.published("greeter").await;
    assert_eq!(published.ready(), all);
    assert_eq!(published.address_ports().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_after_it_recorded_the_adopted_instances_loses_none() {
    // The policy does not refuse Endpoints. Adopting them too early would remove some addresses.
    killed_when_refused("adopt-written", "object.kind == 'EndpointSlice'", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_after_its_first_takeover_loses_no_instance() {
    killed_when_refused("adopt-first", "object.metadata.name == 'b-hand'", &["a-hand"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_before_it_takes_the_endpoints_over_loses_no_instance() {
    killed_when_refused("adopt-last", LAST, &["a-hand", "b-hand"]).await;
}

//! A cluster that behaves like OpenShift. Its admission allows only accounts that may `create` the
//! subresource `restricted` to write addresses of Pods into Endpoints and slices. The cluster
//! assigns the user ids.

use std::time::Duration;

use beatkeeper_cluster::{ControlPlane, Options};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{Endpoints, ServiceAccount},
    discovery::v1::EndpointSlice,
    rbac::v1::{Role, RoleBinding},
};
use kube::{Api, Client, api::PostParams};
use serde_json::json;

use super::{
    helm::{Helm, chart},
    own_plane,
    rights::{flags, kubeconfig},
};
use crate::support::{Operator, TestNamespace, eventually};

const INTERVAL: Duration = Duration::from_millis(300);

/// Does what the admission plugin RestrictedEndpointsAdmission of OpenShift does, for the network
/// of the tests' Pods.
async fn restrict(client: &Client) {
    let kinds = [
        (
            "",
            "endpoints",
            "object.?subsets.orValue([]).exists(subset, subset.?addresses.orValue([]).exists(it, it.ip.startsWith('10.88.')))",
        ),
        (
            "discovery.k8s.io",
            "endpointslices",
            "object.endpoints.exists(it, it.addresses.exists(it, it.startsWith('10.88.')))",
        ),
    ];
    for (group, resource, names_pods) in kinds {
        let name = format!("restricted-{resource}");
        let may = format!(
            "authorizer.group('{group}').resource('{resource}').subresource('restricted')\
             .namespace(request.namespace).check('create').allowed()"
        );
        let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": { "resourceRules": [{
                    "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource],
                    "operations": ["CREATE", "UPDATE"],
                }]},
                "validations": [{
                    "expression": format!("!({names_pods}) || {may}"),
                    "message": "endpoint address 10.88.0.0/16 is not allowed",
                    "reason": "Forbidden",
                }],
            },
        }))
        .unwrap();
        let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "policyName": name, "validationActions": ["Deny"] },
        }))
        .unwrap();
        Api::all(client.clone()).create(&PostParams::default(), &policy).await.unwrap();
        Api::all(client.clone()).create(&PostParams::default(), &binding).await.unwrap();
    }
}

/// Waits until both policies refuse an account that has all rights except those to `restricted`.
async fn in_force(plane: &ControlPlane, ns: &TestNamespace) {
    ns.create::<ServiceAccount>(json!({ "metadata": { "name": "writer" } })).await;
    ns.create::<Role>(json!({ "metadata": { "name": "writer" }, "rules": [
        { "apiGroups": [""], "resources": ["endpoints"], "verbs": ["create"] },
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["create"] },
    ]}))
    .await;
    ns.create::<RoleBinding>(json!({
        "metadata": { "name": "writer" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "writer" },
        "subjects": [{ "kind": "ServiceAccount", "name": "writer", "namespace": ns.name }],
    }))
    .await;
    let writer = plane.client_as(&ns.name, "writer", None).await.unwrap();
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": { "name": "by-hand" }, "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.88.0.7"] }],
    }))
    .unwrap();
    let endpoints: Endpoints = serde_json::from_value(json!({
        "metadata": { "name": "by-hand" }, "subsets": [{ "addresses": [{ "ip": "10.88.0.7" }] }],
    }))
    .unwrap();
    let rehearsed = PostParams { dry_run: true, ..PostParams::default() };
    let is_policy = |error: kube::Error| error.to_string().contains("is not allowed").then_some(());
    eventually("slices are guarded", async || {
        let api: Api<EndpointSlice> = Api::namespaced(writer.clone(), &ns.name);
        api.create(&rehearsed, &slice).await.err().and_then(is_policy)
    })
    .await;
    eventually("Endpoints are guarded", async || {
        let api: Api<Endpoints> = Api::namespaced(writer.clone(), &ns.name);
        api.create(&rehearsed, &endpoints).await.err().and_then(is_policy)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_addresses_of_pods_are_guarded_the_rights_of_the_chart_let_them_be_published() {
    let plane = own_plane(Options::default()).await;
    let helm = Helm::on(plane);
    let folder = tempfile::tempdir().unwrap();
    let unset = "podSecurityContext.runAsUser=null,podSecurityContext.runAsGroup=null";
    for (verb, wide) in [("install", true), ("upgrade", false)] {
        let ns = TestNamespace::new_on(plane, if wide { "wide" } else { "narrow" }).await;
        let range = format!("outsideRanges.{}={{192.0.2.0/24}}", ns.name);
        let narrow = format!("watchNamespaces={{{}}}", ns.name);
        let mut values = vec!["--set", unset, "--set", &range];
        if !wide {
            values.extend(["--set", &narrow]);
        }
        helm.release(verb, &chart(), &values).await;
        plane.declare(&beatkeeper_api::crd()).await.unwrap();
        if wide {
            restrict(&ns.client).await;
        }
        in_force(plane, &ns).await;
        let config = kubeconfig(plane, &folder).await;
        let chosen = flags(&ns.client).await;
        let chosen: Vec<&str> = chosen.iter().map(String::as_str).collect();
        let operator = Operator::start_as(Some("operator-0"), &config, "", &chosen);
        ns.greeter().await;
        let mut beats = ns.beats("greeter");
        let uid = ns.pod("in-a-pod", &["10.88.0.7"], json!({})).await;
        beats.start(&beats.in_pod("in-a-pod", &uid), INTERVAL).await;
        beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
        ns.published_as_ready("greeter", &["10.88.0.7", "192.0.2.1"]).await;
        eventually("its Endpoints name the Pod", async || {
            let subsets = ns.published("greeter").await.endpoints?.subsets?;
            let mut named = subsets.iter().flat_map(|subset| subset.addresses.iter().flatten());
            named.any(|address| address.ip == "10.88.0.7").then_some(())
        })
        .await;
        assert!(operator.stop().await);
    }
}

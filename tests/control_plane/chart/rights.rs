//! The operator has the rights that its work needs, and no others.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use beatkeeper_api::registration::ADOPT_ANNOTATION;
use beatkeeper_cluster::{ControlPlane, Options};
use k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
    events::v1::Event,
    rbac::v1::{ClusterRole, PolicyRule, Role},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    helm::{Helm, RELEASE, chart},
    own_plane,
};
use crate::{
    secure_metrics::reader::Reader,
    support::{Operator, TestNamespace, eventually},
};

const ACCOUNT: &str = "system:serviceaccount:beatkeeper:beatkeeper";
const INTERVAL: Duration = Duration::from_millis(300);

/// Rights that are granted but not needed by the work below, each with the reason for granting it.
const SELDOM: [&str; 7] = [
    // Another user creates or changes the Service at the same time.
    "get services",
    // A write of a slice was refused as a conflict.
    "get discovery.k8s.io/endpointslices",
    // A registration has been gone for half a minute.
    "delete services",
    // The same event happens again within minutes.
    "patch events.k8s.io/events",
    // The admission policy checks this right if it does not know the operator by its name.
    "cordon beatkeeper.dev/serviceregistrations",
    // OpenShift checks them for each write: see `openshift`.
    "create endpoints/restricted",
    "create discovery.k8s.io/endpointslices/restricted",
];

/// A control plane that logs every request of the operator, including reads and watches.
async fn watchful_plane() -> &'static ControlPlane {
    let policy = tempfile::Builder::new().suffix(".json").tempfile().unwrap().keep().unwrap().1;
    let text = json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{ "level": "Metadata", "users": [ACCOUNT] }, { "level": "None" }],
    });
    std::fs::write(&policy, text.to_string()).unwrap();
    let flag = format!("--audit-policy-file={}", policy.display());
    own_plane(Options { api_server_flags: vec![flag], ..Options::default() }).await
}

/// A kubeconfig with only the token of the chart's ServiceAccount.
pub(super) async fn kubeconfig(plane: &ControlPlane, folder: &tempfile::TempDir) -> PathBuf {
    let text = std::fs::read_to_string(plane.kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let token = plane.token(RELEASE, RELEASE, None).await.unwrap();
    config["users"][0]["user"] = json!({ "token": token });
    config["contexts"][0]["context"]["namespace"] = json!(RELEASE);
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

/// The flags that the chart passes to the operator, with free ports.
pub(super) async fn flags(client: &Client) -> Vec<String> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), RELEASE);
    let pod = deployments.get(RELEASE).await.unwrap().spec.unwrap().template.spec.unwrap();
    let args = pod.containers.into_iter().next().unwrap().args.unwrap();
    assert_eq!(args[0], "controller");
    let mut flags: Vec<String> =
        args.into_iter().skip(1).filter(|arg| !arg.contains("-bind-address=")).collect();
    flags.push("--sweep-interval=500ms".to_owned());
    flags
}

/// The permissions in the rules, as `verb group/resource`.
fn allowed(rules: impl IntoIterator<Item = PolicyRule>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for rule in rules {
        for group in rule.api_groups.as_deref().unwrap_or_default() {
            for resource in rule.resources.as_deref().unwrap_or_default() {
                all.extend(rule.verbs.iter().map(|verb| right(verb, group, resource)));
            }
        }
    }
    all
}

fn right(verb: &str, group: &str, resource: &str) -> String {
    let slash = if group.is_empty() { "" } else { "/" };
    format!("{verb} {group}{slash}{resource}")
}

async fn granted(client: &Client) -> BTreeSet<String> {
    let ours = ListParams::default().labels("app.kubernetes.io/instance=beatkeeper");
    let roles: Api<Role> = Api::all(client.clone());
    let cluster_roles: Api<ClusterRole> = Api::all(client.clone());
    let roles = roles.list(&ours).await.unwrap().items.into_iter().flat_map(|role| role.rules);
    let wide = cluster_roles.list(&ours).await.unwrap().items.into_iter();
    let wide = wide.flat_map(|role| role.rules);
    allowed(roles.flatten().chain(wide.flatten()))
}

/// Everything that an operator does: publish, prune, sweep, adopt, hand over the lead, and report.
async fn the_whole_job(ns: &TestNamespace, start: impl Fn(&str, &[&str]) -> Operator) {
    let first = start("operator-0", &["--metrics-bind-address=127.0.0.1:0"]);
    reviews_a_token(ns, &first).await;
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    beats.start(&beats.outside("vm-2", "192.0.2.2"), INTERVAL).await;
    let uid = ns.pod("in-a-pod", &["10.88.0.7"], json!({})).await;
    beats.start(&beats.in_pod("in-a-pod", &uid), INTERVAL).await;
    ns.published_as_ready("greeter", &["10.88.0.7", "192.0.2.1", "192.0.2.2"]).await;
    beats.die("vm-2");
    ns.instance("greeter", "vm-2", "Expired", "TTLPassed").await;

    // With other ports the Service is changed, and slices are created again.
    let ports = json!([{ "name": "grpc", "port": 81, "targetPort": 8081 }]);
    ns.patch::<beatkeeper_api::ServiceRegistration>(
        "greeter",
        json!({ "spec": { "ports": ports } }),
    )
    .await;
    eventually("the Service has the other port", async || {
        let service = ns.api::<Service>().get("greeter").await.unwrap().spec.unwrap();
        service.ports.is_some_and(|ports| ports[0].port == 81).then_some(())
    })
    .await;

    adopts(ns).await;
    sweeps(ns).await;

    let second = start("operator-1", &[]);
    let leases: Api<Lease> = Api::namespaced(ns.client.clone(), RELEASE);
    eventually("the second one has seen everything", async || {
        second.logged().contains("taking part in the election").then_some(())
    })
    .await;
    assert!(first.stop().await);
    eventually("the second one leads", async || {
        let holder = leases.get(RELEASE).await.unwrap().spec?.holder_identity?;
        holder.starts_with("operator-1").then_some(())
    })
    .await;
    beats.die("vm-1");
    ns.published_as_ready("greeter", &["10.88.0.7"]).await;
    let events = ns.api::<Event>().list(&ListParams::default()).await.unwrap().items;
    let pruned = events.iter().any(|event| {
        event.regarding.as_ref().is_some_and(|it| it.name.as_deref() == Some("greeter"))
    });
    assert!(pruned, "no event of the registration: {events:?}");
    assert!(second.stop().await);

    // The Endpoints objects are removed again.
    let last = start("operator-2", &["--publish-endpoints=false"]);
    eventually("the Endpoints are removed", async || {
        ns.published("greeter").await.endpoints.is_none().then_some(())
    })
    .await;
    assert!(last.stop().await);
}

/// The operator's own token is a valid one, and may not read the metrics.
async fn reviews_a_token(ns: &TestNamespace, operator: &Operator) {
    let reader = Reader::of(&operator.address("metrics-bind-address").await, None);
    let token = ns.plane.token(RELEASE, RELEASE, None).await.unwrap();
    assert_eq!(reader.get(Some(&token)).await.unwrap().code, 403);
}

async fn adopts(ns: &TestNamespace) {
    ns.service("legacy", json!({})).await;
    let ports = json!([{ "name": "grpc", "port": 8080 }]);
    ns.create::<Endpoints>(json!({
        "metadata": { "name": "legacy" },
        "subsets": [{ "addresses": [{ "ip": "192.0.2.9" }], "ports": ports }],
    }))
    .await;
    ns.create::<EndpointSlice>(json!({
        "metadata": { "name": "legacy-by-hand", "labels": {
            "kubernetes.io/service-name": "legacy",
            "endpointslice.kubernetes.io/managed-by": "staff",
        }},
        "addressType": "IPv4", "ports": ports, "endpoints": [{ "addresses": ["192.0.2.9"] }],
    }))
    .await;
    let registration = serde_json::from_value(json!({
        "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
        "metadata": { "name": "legacy", "annotations": { ADOPT_ANNOTATION: "true" } },
        "spec": TestNamespace::usual_spec(),
    }))
    .unwrap();
    let api: Api<beatkeeper_api::ServiceRegistration> = ns.api();
    api.create(&PostParams::default(), &registration).await.unwrap();
    ns.condition("legacy", "Ready", "True", "Published").await;
    ns.published_as_ready("legacy", &["192.0.2.9"]).await;
}

async fn sweeps(ns: &TestNamespace) {
    let ports = json!([{ "name": "grpc", "port": 80, "targetPort": 8080 }]);
    ns.register("short", json!({ "ttl": "1s", "interval": "300ms", "ports": ports })).await;
    let beats = ns.beats("short");
    beats.create(&beats.outside("vm-3", "192.0.2.3")).await;
    ns.instance("short", "vm-3", "Expired", "TTLPassed").await;
    eventually("its Lease is swept", async || ns.lease("short.vm-3").await.is_none().then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_does_its_whole_work_with_the_rights_of_the_chart_and_uses_each_of_them() {
    let plane = watchful_plane().await;
    let helm = Helm::on(plane);
    let folder = tempfile::tempdir().unwrap();
    for wide in [false, true] {
        let ns = TestNamespace::new_on(plane, if wide { "wide" } else { "narrow" }).await;
        let ranges = json!({ &ns.name: ["192.0.2.0/24"] });
        let values = json!({
            "outsideRanges": ranges,
            "watchNamespaces": if wide { json!([]) } else { json!([ns.name]) },
            "clusterRoles": { "create": false },
            "metrics": { "secure": { "enabled": true } },
        });
        let file = folder.path().join("values.yaml");
        std::fs::write(&file, values.to_string()).unwrap();
        let values = ["-f", file.to_str().unwrap()];
        helm.release("install", &chart(), &values).await;
        plane.declare(&beatkeeper_api::crd()).await.unwrap();
        let config = kubeconfig(plane, &folder).await;
        let chosen = flags(&ns.client).await;
        let mark = plane.audit_mark().await.unwrap();
        the_whole_job(&ns, |pod, more| {
            let all: Vec<&str> =
                chosen.iter().map(String::as_str).chain(more.iter().copied()).collect();
            Operator::start_as(Some(pod), &config, "", &all)
        })
        .await;

        let requests = plane.audit_since(mark).await.unwrap();
        let refused: Vec<_> = requests.iter().filter(|entry| entry.code == 403).collect();
        assert!(refused.is_empty(), "cluster-wide: {wide}; refused: {refused:#?}");
        let used: BTreeSet<String> = requests
            .iter()
            .filter(|entry| !entry.resource.is_empty())
            .map(|entry| {
                let slash = if entry.subresource.is_empty() { "" } else { "/" };
                let resource = format!("{}{slash}{}", entry.resource, entry.subresource);
                right(&entry.verb, &entry.api_group, &resource)
            })
            .collect();
        let needless: Vec<String> = granted(&ns.client)
            .await
            .into_iter()
            .filter(|right| !used.contains(right) && !SELDOM.contains(&right.as_str()))
            .collect();
        assert_eq!(
            needless, [""; 0],
            "cluster-wide: {wide}; granted, and never used; used: {used:#?}"
        );

        helm.run(&["uninstall", RELEASE, "--namespace", RELEASE]).await;
        let leases: Api<Lease> = Api::namespaced(ns.client.clone(), RELEASE);
        leases.delete(RELEASE, &DeleteParams::default()).await.unwrap();
    }
}

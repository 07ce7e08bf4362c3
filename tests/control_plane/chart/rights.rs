//! The operator has the rights that its work needs, and no others. So do those that ask its leader.

mod doctor;

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use beatkeeper_api::registration::ADOPT_ANNOTATION;
use beatkeeper_cluster::{AuditEntry, ControlPlane, Options};
use k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
    events::v1::Event,
    rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

use self::doctor::{ASKED_AS, DOCTOR};
use super::{
    helm::{Helm, RELEASE, chart},
    own_plane,
};
use crate::{
    secure_metrics::reader::Reader,
    support::{Operator, TestNamespace, eventually},
};

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

/// The user of a ServiceAccount in the namespace of the release.
fn user(account: &str) -> String {
    format!("system:serviceaccount:{RELEASE}:{account}")
}

/// A control plane that logs every request of the operator and of the doctor, including reads and watches.
async fn watchful_plane() -> &'static ControlPlane {
    let policy = tempfile::Builder::new().suffix(".json").tempfile().unwrap().keep().unwrap().1;
    let text = json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{ "level": "Metadata", "users": [user(RELEASE), user(DOCTOR)] }, { "level": "None" }],
    });
    std::fs::write(&policy, text.to_string()).unwrap();
    let flag = format!("--audit-policy-file={}", policy.display());
    own_plane(Options { api_server_flags: vec![flag], ..Options::default() }).await
}

/// A kubeconfig with only the token of the chart's ServiceAccount.
pub(super) async fn kubeconfig(plane: &ControlPlane, folder: &tempfile::TempDir) -> PathBuf {
    kubeconfig_of(plane, folder, RELEASE, RELEASE).await
}

/// A kubeconfig with only the token of a ServiceAccount, in whose namespace it works.
pub(super) async fn kubeconfig_of(
    plane: &ControlPlane,
    folder: &tempfile::TempDir,
    namespace: &str,
    account: &str,
) -> PathBuf {
    let token = plane.token(namespace, account, None).await.unwrap();
    let file = folder.path().join(account);
    std::fs::write(&file, plane.kubeconfig_with(&token, Some(namespace)).unwrap()).unwrap();
    file
}

/// The flags that the chart passes to the operator, with free ports.
pub(super) async fn flags(client: &Client) -> Vec<String> {
    flags_of(client, RELEASE, RELEASE).await
}

/// The same of a Deployment with this namespace and this name.
pub(super) async fn flags_of(client: &Client, namespace: &str, name: &str) -> Vec<String> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let pod = deployments.get(name).await.unwrap().spec.unwrap().template.spec.unwrap();
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

/// The rights that the chart gives a ServiceAccount in the namespace of the release.
async fn granted(client: &Client, account: &str) -> BTreeSet<String> {
    let ours = ListParams::default().labels("app.kubernetes.io/instance=beatkeeper");
    let roles = Api::<Role>::all(client.clone()).list(&ours).await.unwrap().items;
    let wide = Api::<ClusterRole>::all(client.clone()).list(&ours).await.unwrap().items;
    let bindings = Api::<RoleBinding>::all(client.clone()).list(&ours).await.unwrap().items;
    let wide_bindings = Api::<ClusterRoleBinding>::all(client.clone()).list(&ours).await;
    let is_its = |subjects: Option<&Vec<Subject>>| {
        subjects.into_iter().flatten().any(|it| it.kind == "ServiceAccount" && it.name == account)
    };
    let mut rules = Vec::new();
    for binding in bindings.iter().filter(|it| is_its(it.subjects.as_ref())) {
        let (namespace, name) = (&binding.metadata.namespace, Some(&binding.role_ref.name));
        let is_bound =
            |it: &&Role| it.metadata.namespace == *namespace && it.metadata.name.as_ref() == name;
        let role = roles.iter().find(is_bound).expect("the role of a binding");
        rules.extend(role.rules.clone().unwrap_or_default());
    }
    for binding in wide_bindings.unwrap().items.iter().filter(|it| is_its(it.subjects.as_ref())) {
        let name = Some(&binding.role_ref.name);
        let role = wide.iter().find(|it| it.metadata.name.as_ref() == name);
        rules.extend(role.expect("the role of a binding").rules.clone().unwrap_or_default());
    }
    allowed(rules)
}

/// The rights that the requests of a user have used.
fn used(requests: &[AuditEntry], user: &str) -> BTreeSet<String> {
    let its = requests.iter().filter(|it| it.user == user && it.code != 403);
    its.filter(|entry| !entry.resource.is_empty())
        .map(|entry| {
            let slash = if entry.subresource.is_empty() { "" } else { "/" };
            let resource = format!("{}{slash}{}", entry.resource, entry.subresource);
            right(&entry.verb, &entry.api_group, &resource)
        })
        .collect()
}

/// What the operator guards by reviews in a run. Both need the same rights, and each alone has to get them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guarded {
    Metrics,
    Explain,
}

impl Guarded {
    /// The values of the chart, and the flag of the operator with a free port.
    fn values_and_flag(self) -> (Value, &'static str) {
        match self {
            Self::Metrics => {
                let values = json!({ "metrics": { "secure": { "enabled": true } } });
                (values, "--metrics-bind-address=127.0.0.1:0")
            }
            Self::Explain => {
                let readers =
                    json!([{ "kind": "ServiceAccount", "name": DOCTOR, "namespace": RELEASE }]);
                let explain = json!({ "explain": { "enabled": true, "readers": readers } });
                (explain, "--explain-bind-address=127.0.0.1:0")
            }
        }
    }
}

/// Everything that an operator does: publish, prune, sweep, adopt, hand over the lead, and report.
async fn the_whole_job(
    ns: &TestNamespace,
    guarded: Guarded,
    start: impl Fn(&str, &[&str]) -> Operator,
) {
    let first = start("operator-0", &[guarded.values_and_flag().1]);
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    beats.start(&beats.outside("vm-1", "192.0.2.1"), INTERVAL).await;
    beats.start(&beats.outside("vm-2", "192.0.2.2"), INTERVAL).await;
    let uid = ns.pod("in-a-pod", &["10.88.0.7"], json!({})).await;
    beats.start(&beats.in_pod("in-a-pod", &uid), INTERVAL).await;
    ns.published_as_ready("greeter", &["10.88.0.7", "192.0.2.1", "192.0.2.2"]).await;
    match guarded {
        Guarded::Metrics => reviews_a_token(ns, &first).await,
        Guarded::Explain => doctor::asks(ns, &first).await,
    }
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

/// Compares what the chart grants with what was requested.
async fn what_is_granted_suffices_and_is_used(
    client: &Client,
    requests: &[AuditEntry],
    guarded: Guarded,
    case: &str,
) {
    let operator = user(RELEASE);
    let refused: Vec<_> =
        requests.iter().filter(|it| it.user == operator && it.code == 403).collect();
    assert!(refused.is_empty(), "{case}; refused: {refused:#?}");
    let used_by_operator = used(requests, &operator);
    let needless: Vec<String> = granted(client, RELEASE)
        .await
        .into_iter()
        .filter(|right| !used_by_operator.contains(right) && !SELDOM.contains(&right.as_str()))
        .collect();
    assert_eq!(needless, [""; 0], "{case}; granted, and never used; used: {used_by_operator:#?}");
    // The doctor was answered, so what it has suffices.
    let used_by_doctor = used(requests, &user(DOCTOR));
    assert_eq!(granted(client, DOCTOR).await, used_by_doctor, "{case}");
    let reviewed = match guarded {
        Guarded::Metrics => BTreeSet::new(),
        Guarded::Explain => [right("get", "beatkeeper.dev", "serviceregistrations")].into(),
    };
    assert_eq!(granted(client, ASKED_AS).await, reviewed, "{case}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_does_its_whole_work_with_the_rights_of_the_chart_and_uses_each_of_them() {
    let plane = watchful_plane().await;
    let helm = Helm::on(plane);
    let folder = tempfile::tempdir().unwrap();
    for (prefix, wide, guarded) in [
        ("narrow", false, Guarded::Explain),
        ("wide", true, Guarded::Explain),
        ("guarded", true, Guarded::Metrics),
    ] {
        let ns = TestNamespace::new_on(plane, prefix).await;
        let ranges = json!({ &ns.name: ["192.0.2.0/24"] });
        let mut values = guarded.values_and_flag().0;
        values["outsideRanges"] = ranges;
        values["watchNamespaces"] = if wide { json!([]) } else { json!([ns.name]) };
        values["clusterRoles"] = json!({ "create": false });
        let file = folder.path().join("values.yaml");
        std::fs::write(&file, values.to_string()).unwrap();
        let values = ["-f", file.to_str().unwrap()];
        helm.release("install", &chart(), &values).await;
        doctor::create(&ns.client).await;
        plane.declare(&beatkeeper_api::crd()).await.unwrap();
        let config = kubeconfig(plane, &folder).await;
        let chosen = flags(&ns.client).await;
        let mark = plane.audit_mark().await.unwrap();
        the_whole_job(&ns, guarded, |pod, more| {
            let all: Vec<&str> =
                chosen.iter().map(String::as_str).chain(more.iter().copied()).collect();
            Operator::start_as(Some(pod), &config, "", &all)
        })
        .await;

        let requests = plane.audit_since(mark).await.unwrap();
        let case = format!("cluster-wide: {wide}, {guarded:?}");
        what_is_granted_suffices_and_is_used(&ns.client, &requests, guarded, &case).await;

        helm.run(&["uninstall", RELEASE, "--namespace", RELEASE]).await;
        let leases: Api<Lease> = Api::namespaced(ns.client.clone(), RELEASE);
        leases.delete(RELEASE, &DeleteParams::default()).await.unwrap();
    }
}

//! Objects that our types cannot hold, and huge objects. Each affects only itself, and none appears
//! in a log.

mod clients;

use std::collections::BTreeSet;

use beatkeeper_cluster::Options;
use futures::{StreamExt, stream};
use http::Request;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node, rbac::v1::ClusterRoleBinding};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use crate::support::{Fixture, Operator, TestNamespace, eventually};

/// A time that our types cannot hold, which `kubectl patch` can write into any object.
fn strange(group: &str) -> Value {
    let version = group.trim_start_matches("apis/").trim_start_matches("api/");
    json!([{
        "manager": "m", "operation": "Update", "apiVersion": version, "time": "9999-12-31T23:59:59Z",
        "fieldsType": "FieldsV1", "fieldsV1": { "f:metadata": { "f:labels": { "f:a": {} } } },
    }])
}

const SLICES: &str = "apis/discovery.k8s.io/v1";
const LEASES: &str = "apis/coordination.k8s.io/v1";
const REGISTRATIONS: &str = "apis/beatkeeper.dev/v1alpha1";

impl TestNamespace {
    /// Sends a raw request, because kube's types cannot read the answer.
    async fn raw(&self, method: &str, path: &str, body: &Value) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(format!("/{path}"))
            .header(
                "content-type",
                if method == "PATCH" { "application/merge-patch+json" } else { "application/json" },
            )
            .body(body.to_string().into_bytes())
            .unwrap();
        serde_json::from_str(&self.client.request_text(request).await.unwrap()).unwrap()
    }

    /// Changes an object so that no type of kube can hold it.
    async fn make_strange(&self, group: &str, resource: &str) {
        let path = format!("{group}/namespaces/{}/{resource}", self.name);
        let patch = json!({ "metadata": { "managedFields": strange(group) } });
        let answer = self.raw("PATCH", &path, &patch).await;
        let fields = answer["metadata"]["managedFields"].as_array().unwrap();
        assert!(fields.iter().any(|entry| entry["time"] == "9999-12-31T23:59:59Z"), "{answer}");
    }

    async fn raw_slices(&self) -> Vec<Value> {
        let path = format!("{SLICES}/namespaces/{}/endpointslices", self.name);
        let list = self.raw("GET", &path, &json!(null)).await;
        list["items"].as_array().unwrap().clone()
    }

    /// Waits until the slices have exactly these addresses.
    async fn eventually_has(&self, addresses: &[&str]) {
        let wanted: BTreeSet<String> = addresses.iter().map(|&text| text.to_owned()).collect();
        eventually(&format!("the slices have {wanted:?}"), async || {
            let slices = self.raw_slices().await;
            let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().unwrap());
            let addresses = endpoints.map(|endpoint| endpoint["addresses"][0].as_str().unwrap());
            (addresses.map(str::to_owned).collect::<BTreeSet<_>>() == wanted).then_some(())
        })
        .await;
    }

    async fn all_are_strange(&self) {
        self.make_strange("api/v1", "pods/web").await;
        self.make_strange("api/v1", "services/greeter").await;
        self.make_strange("api/v1", "endpoints/greeter").await;
        self.make_strange(REGISTRATIONS, "serviceregistrations/greeter").await;
        self.make_strange(LEASES, "leases/greeter.web").await;
        for slice in self.raw_slices().await {
            let name = slice["metadata"]["name"].as_str().unwrap();
            self.make_strange(SLICES, &format!("endpointslices/{name}")).await;
        }
    }
}

async fn strange_node(ns: &TestNamespace) {
    let node = serde_json::from_value(json!({ "metadata": { "name": "strange" } })).unwrap();
    Api::<Node>::all(ns.client.clone()).create(&PostParams::default(), &node).await.unwrap();
    let patch = json!({ "metadata": { "managedFields": strange("api/v1") } });
    ns.raw("PATCH", "api/v1/nodes/strange", &patch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_each_kind_that_no_type_can_hold_neither_blind_the_operator_nor_stop_its_writes()
{
    let fixture = Fixture::on_own_plane("strange", Options::default()).await;
    fixture.join_pod("web", &["10.88.0.7"], json!({})).await;
    fixture.join("vm-1", "192.0.2.1").await;
    fixture.eventually_has(&["10.88.0.7", "192.0.2.1"]).await;

    strange_node(&fixture).await;
    fixture.all_are_strange().await;
    fixture.join("vm-2", "192.0.2.2").await;
    fixture.eventually_has(&["10.88.0.7", "192.0.2.1", "192.0.2.2"]).await;
    fixture.quit("vm-1").await;
    fixture.eventually_has(&["10.88.0.7", "192.0.2.2"]).await;

    // An operator that must list all of these objects.
    let Fixture { ns, operator, beats } = fixture;
    operator.kill();
    ns.all_are_strange().await;
    let ranges = ns.ranges();
    let flags: Vec<&str> = ranges.iter().map(String::as_str).collect();
    let operator = Operator::start(ns.plane, "", &flags);
    eventually("the operator publishes", async || {
        operator.logged().contains("publishing begins").then_some(())
    })
    .await;
    beats.create(&beats.outside("vm-3", "192.0.2.3")).await;
    ns.eventually_has(&["10.88.0.7", "192.0.2.2", "192.0.2.3"]).await;
    assert!(!operator.logged().contains("cannot be read"), "all that is used of them can be read");
}

/// A Lease with as many labels as an object may have: 581 kB.
fn huge(number: usize) -> Value {
    let label =
        |label| (format!("{label:04}.{}/{}", "d".repeat(240), "n".repeat(63)), "v".repeat(63));
    let mut labels: serde_json::Map<String, Value> =
        (0..1520).map(label).map(|(key, value)| (key, value.into())).collect();
    labels.insert("beatkeeper.dev/registration".to_owned(), "greeter".into());
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": format!("greeter.huge-{number}"), "labels": labels },
        "spec": { "holderIdentity": format!("huge-{number}") },
    })
}

/// The operator's peak of memory after a start with `count` huge Leases.
async fn peak_with(count: usize) -> u64 {
    let plane = crate::support::crd::install_on_own(Options::default()).await;
    let ns = TestNamespace::new_on(plane, "huge").await;
    let path = format!("{LEASES}/namespaces/{}/leases", ns.name);
    stream::iter(0..count)
        .for_each_concurrent(4, |number| {
            let (ns, path) = (&ns, &path);
            async move { drop(ns.raw("POST", path, &huge(number)).await) }
        })
        .await;
    ns.greeter().await;
    let operator = Operator::start(plane, "", &[]);
    eventually("the operator has looked at it", async || {
        let status = ns.registration("greeter").await.status?;
        (usize::try_from(status.total).unwrap() == count).then_some(())
    })
    .await;
    let peak = operator.peak_memory();
    println!("{count} Leases of 581 kB: a peak of {peak} MiB");
    ns.api::<Lease>().delete("greeter.huge-0", &DeleteParams::default()).await.unwrap();
    peak
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_leases_are_read_one_at_a_time() {
    let peak = peak_with(60).await;
    assert!(peak < 90, "35 MB of Leases take the operator to {peak} MiB");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute, and 300 MB in etcd"]
async fn five_hundred_huge_leases_leave_the_charts_limit_far_away() {
    let peak = peak_with(500).await;
    assert!(peak < 128, "290 MB of Leases take the operator to {peak} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_object_and_no_token_is_in_the_log_whatever_rust_log_says() {
    let ns = TestNamespace::new("secrets").await;
    let admin = json!({
        "metadata": { "name": ns.name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": ns.name }],
    });
    let bindings = Api::<ClusterRoleBinding>::all(ns.client.clone());
    let admin = serde_json::from_value(admin).unwrap();
    bindings.create(&PostParams::default(), &admin).await.unwrap();
    let token = ns.plane.token(&ns.name, "default", None).await.unwrap();
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(kubeconfig.path(), ns.plane.kubeconfig_with(&token, None).unwrap()).unwrap();

    let env = json!([{ "name": "PASSWORD", "value": "hunter2-of-the-pod" }]);
    let containers = json!([{ "name": "main", "image": "none", "env": env }]);
    let uid = ns.pod("web", &["10.88.0.7"], json!({ "containers": containers })).await;
    ns.make_strange("api/v1", "pods/web").await;
    ns.patient_registration().await;
    let say = "trace,kube_client=trace,kube_runtime=trace,hyper=trace,rustls=trace,tower=trace";
    let namespace = format!("--namespace={}", ns.name);
    let operator = Operator::start_saying(say, None, kubeconfig.path(), "", &[&namespace]);
    ns.looked_at("greeter").await;
    let beats = ns.beats("greeter");
    let mut lease = beats.in_pod("web", &uid);
    let note = [("example.com/secret".to_owned(), "hunter2-of-the-lease".to_owned())];
    lease.metadata.annotations.get_or_insert_default().extend(note);
    beats.create(&lease).await;
    ns.eventually_has(&["10.88.0.7"]).await;
    ns.make_strange("api/v1", "pods/web").await;
    ns.quit_lease("greeter.web").await;
    ns.eventually_has(&[]).await;
    let log = operator.logged();
    bindings.delete(&ns.name, &DeleteParams::default()).await.unwrap();
    assert!(log.contains("TRACE beatkeeper"), "it says all that it has to say");
    for secret in ["hunter2", &token, "Bearer", "PASSWORD"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

impl TestNamespace {
    async fn patient_registration(&self) {
        let mut spec = Self::usual_spec();
        (spec["ttl"], spec["interval"]) = ("1h".into(), "10m".into());
        self.register("greeter", spec).await;
    }

    async fn quit_lease(&self, name: &str) {
        self.api::<Lease>().delete(name, &DeleteParams::default()).await.unwrap();
    }
}

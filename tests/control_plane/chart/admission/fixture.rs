//! A control plane with the chart's admission policy, and requests to it.

use beatkeeper_api::heartbeat;
use beatkeeper_cluster::{ControlPlane, Options};
use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ServiceAccount, rbac::v1::RoleBinding};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::chart::{
    helm::{Helm, chart},
    own_plane,
};
use crate::support::{TestNamespace, eventually};

/// A namespace with a registration, Pods, and ServiceAccounts that may write Leases.
pub struct PolicyFixture {
    pub ns: TestNamespace,
    pub plane: &'static ControlPlane,
}

impl PolicyFixture {
    /// Creates them on a control plane with the chart. The chart's policy is in force when
    /// this returns.
    pub async fn new(values: &[&str]) -> Self {
        let plane = own_plane(Options::default()).await;
        Helm::on(plane).release("install", &chart(), values).await;
        plane.declare(&beatkeeper_api::crd()).await.unwrap();
        let ns = TestNamespace::new_on(plane, "admission").await;
        ns.greeter().await;
        let fixture = Self { ns, plane };
        fixture
            .bind(&fixture.ns, "ClusterRole", "beatkeeper-heartbeat", "default", &fixture.ns.name)
            .await;
        fixture.account("outside").await;
        let stranger = fixture.client("default", None).await;
        eventually("the policy is in force", async || {
            let lease = fixture.lease("greeter.nobody", "nobody", None);
            let api: Api<Lease> = Api::namespaced(stranger.clone(), &fixture.ns.name);
            let params = PostParams { dry_run: true, ..PostParams::default() };
            // Before the right of the account has an effect, it is refused for another reason.
            let refused = api.create(&params, &lease).await.err()?;
            refused.to_string().contains("ValidatingAdmissionPolicy").then_some(())
        })
        .await;
        fixture
    }

    pub async fn account(&self, name: &str) {
        self.ns.create::<ServiceAccount>(json!({ "metadata": { "name": name } })).await;
    }

    /// Binds a role in `namespace` to a ServiceAccount of any namespace.
    pub async fn bind(&self, ns: &TestNamespace, kind: &str, role: &str, account: &str, of: &str) {
        ns.create::<RoleBinding>(json!({
            "metadata": { "name": format!("{role}-{account}-{of}") },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role },
            "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": of }],
        }))
        .await;
    }

    pub async fn client(&self, account: &str, pod: Option<&str>) -> Client {
        self.plane.client_as(&self.ns.name, account, pod).await.unwrap()
    }

    /// Creates a Pod, and a client with its token.
    pub async fn pod(&self, name: &str) -> (String, Api<Lease>) {
        let uid = self.ns.pod(name, &["10.88.0.7"], json!({})).await;
        let client = self.client("default", Some(name)).await;
        (uid, Api::namespaced(client, &self.ns.name))
    }

    pub fn lease(&self, name: &str, holder: &str, pod: Option<(&str, &str)>) -> Lease {
        let owners = pod.map(
            |(name, uid)| json!([{ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid }]),
        );
        let registration = name.split_once('.').unwrap().0;
        serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "labels": { heartbeat::REGISTRATION_LABEL: registration },
                "ownerReferences": owners,
            },
            "spec": { "holderIdentity": holder, "renewTime": heartbeat::renew_time(Timestamp::now()) },
        }))
        .unwrap()
    }
}

pub async fn create(api: &Api<Lease>, lease: &Lease) -> kube::Result<Lease> {
    api.create(&PostParams::default(), lease).await
}

pub async fn patch(api: &Api<Lease>, name: &str, patch: Value) -> kube::Result<Lease> {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

pub async fn beat(api: &Api<Lease>, name: &str) -> kube::Result<Lease> {
    patch(api, name, heartbeat::beat_patch(Timestamp::now())).await
}

pub async fn delete(api: &Api<Lease>, name: &str) -> kube::Result<()> {
    api.delete(name, &DeleteParams::default()).await.map(|_| ())
}

pub fn label(registration: Option<&str>) -> Value {
    json!({ "metadata": { "labels": { heartbeat::REGISTRATION_LABEL: registration } } })
}

pub fn cordon(why: Option<&str>) -> Value {
    json!({ "metadata": { "annotations": { heartbeat::CORDONED_ANNOTATION: why } } })
}

/// Checks that the policy refused the request with these words.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(what: &str, result: kube::Result<T>, words: &str) {
    let kube::Error::Api(status) = result.expect_err(what) else { panic!("{what}") };
    println!("{what}: {}", status.message);
    assert_eq!(status.code, 403, "{what}: {}", status.message);
    assert!(status.message.contains("ValidatingAdmissionPolicy"), "{what}: {}", status.message);
    assert!(status.message.contains(words), "{what}: {}", status.message);
}

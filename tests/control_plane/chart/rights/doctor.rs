//! One of `explain.readers`, who asks the leader as `kubectl beatkeeper why` does.

use beatkeeper_api::explain::{EXPLAIN_AUDIENCE, Explanation, explain_path};
use beatkeeper_cluster::ControlPlane;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    coordination::v1::Lease,
    core::v1::{Pod, ServiceAccount},
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use super::kubeconfig_of;
use crate::{
    chart::helm::RELEASE,
    explain::reader::address,
    secure_metrics::reader::Reader,
    support::{Operator, TestNamespace, eventually},
};

/// The ServiceAccount that the values name.
pub const DOCTOR: &str = "doctor";
/// As which it asks.
pub const ASKED_AS: &str = "beatkeeper-explain";

/// Creates the account, before the chart gives it a role.
pub async fn create(client: &Client) {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), RELEASE);
    if accounts.get_opt(DOCTOR).await.unwrap().is_none() {
        let doctor = serde_json::from_value(json!({ "metadata": { "name": DOCTOR } })).unwrap();
        accounts.create(&PostParams::default(), &doctor).await.unwrap();
    }
}

/// Asks the operator about vm-1 of greeter, with nothing but the doctor's rights.
pub async fn asks(ns: &TestNamespace, operator: &Operator) {
    let folder = tempfile::tempdir().unwrap();
    let file = kubeconfig_of(ns.plane, &folder, RELEASE, DOCTOR).await;
    let read = Kubeconfig::read_from(&file).unwrap();
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();

    let leases: Api<Lease> = Api::namespaced(client.clone(), RELEASE);
    leases.get(RELEASE).await.expect("it reads the Lease of the election");
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![EXPLAIN_AUDIENCE.to_owned()],
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client, RELEASE);
    let params = PostParams::default();
    let made: TokenRequest = accounts
        .create_subresource("token", ASKED_AS, &params, &request)
        .await
        .expect("it makes a token");
    let token = made.status.unwrap().token;

    let reader = Reader::of(&address(operator).await, None);
    let path = explain_path(&ns.name, "greeter", "vm-1");
    let explanation: Explanation = eventually("it is explained", async || {
        let answer = reader.read(&path, Some(&token)).await?;
        (answer.code == 200).then(|| serde_json::from_str(&answer.body).unwrap())
    })
    .await;
    assert!(explanation.lease.is_some(), "{explanation:?}");
    forwards(ns.plane, &ns.client, &file).await;
}

/// kubectl gets as far as the kubelet, which there is none of.
async fn forwards(plane: &ControlPlane, admin: &Client, kubeconfig: &std::path::Path) {
    let pods: Api<Pod> = Api::namespaced(admin.clone(), RELEASE);
    let of_operator = ListParams::default().labels("app.kubernetes.io/component=operator");
    let pod = eventually("the operator has Pods", async || {
        let pods = pods.list(&of_operator).await.unwrap().items;
        pods.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none())
    })
    .await
    .name_any();
    let running = Patch::Merge(json!({ "status": { "phase": "Running" } }));
    pods.patch_status(&pod, &PatchParams::default(), &running).await.unwrap();
    let mut kubectl = plane.kubectl();
    kubectl.args(["--kubeconfig", kubeconfig.to_str().unwrap(), "--namespace", RELEASE]);
    kubectl.args(["port-forward", &format!("pod/{pod}"), ":8082", "--address", "127.0.0.1"]);
    let ended = tokio::task::spawn_blocking(move || kubectl.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && !said.contains("forbidden"), "{said}");
}

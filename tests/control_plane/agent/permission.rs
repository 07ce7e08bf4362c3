//! An agent without rights.

use std::path::{Path, PathBuf};

use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::fixture::TestNamespace;

#[tokio::test]
async fn a_missing_permission_is_explained_with_the_rule_to_add() {
    let ns = TestNamespace::new().await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = kubeconfig_of_default_account(&ns, folder.path()).await;
    let mut agent = ns.agent_with(&kubeconfig, &["--instance", "vm-1"]);
    let line = agent.says("not allowed to get serviceregistrations.beatkeeper.dev").await;
    let rule = format!(
        "add to a Role in namespace {}, and bind it: {{apiGroups: [\"beatkeeper.dev\"], resources: [\"serviceregistrations\"], verbs: [\"get\"]}}",
        ns.name
    );
    assert!(line.contains(&rule), "{line}");

    // The agent's message names the missing right. Granting it helps.
    allow(
        &ns,
        "registrations",
        r#"{apiGroups: ["beatkeeper.dev"], resources: ["serviceregistrations"], verbs: ["get"]}"#,
    )
    .await;
    let line = agent.says("not allowed to get leases.coordination.k8s.io").await;
    let rule = r#"{apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["get", "create", "patch", "delete"]}"#;
    assert!(line.contains(rule), "{line}");
    allow(&ns, "leases", rule).await;
    agent.says("beating as vm-1").await;
}

/// A kubeconfig for the namespace's default ServiceAccount, which has no rights.
async fn kubeconfig_of_default_account(ns: &TestNamespace, folder: &Path) -> PathBuf {
    let token = ns.plane.token(&ns.name, "default", None).await.unwrap();
    let path = folder.join("kubeconfig");
    std::fs::write(&path, ns.plane.kubeconfig_with(&token, None).unwrap()).unwrap();
    path
}

/// Grants the default ServiceAccount a rule, in the words of the agent's message.
async fn allow(ns: &TestNamespace, name: &str, rule: &str) {
    use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding};
    let rule: PolicyRule = serde_saphyr::from_str(rule).unwrap();
    let role = Role {
        metadata: kube::core::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        rules: Some(vec![rule]),
    };
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": ns.name }],
    }))
    .unwrap();
    let (client, namespace) = (ns.client.clone(), &ns.name);
    let parameters = PostParams::default();
    Api::namespaced(client.clone(), namespace).create(&parameters, &role).await.unwrap();
    Api::namespaced(client, namespace).create(&parameters, &binding).await.unwrap();
}

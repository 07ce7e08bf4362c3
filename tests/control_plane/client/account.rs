//! A ServiceAccount with only the rights of an instance, and its tokens.

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::{Config, api::DeleteParams};
use serde_json::{Value, json};

use crate::support::TestNamespace;

/// The default ServiceAccount of a namespace.
pub struct Account<'a>(&'a TestNamespace);

impl<'a> Account<'a> {
    pub async fn of(ns: &'a TestNamespace) -> Self {
        let rules = json!([
            { "apiGroups": ["beatkeeper.dev"], "resources": ["serviceregistrations"], "verbs": ["get"] },
            { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
              "verbs": ["get", "create", "patch", "delete"] },
        ]);
        ns.create::<Role>(json!({ "metadata": { "name": "beats" }, "rules": rules })).await;
        let account = Self(ns);
        account.allow().await;
        account
    }

    pub async fn allow(&self) {
        self.0
            .create::<RoleBinding>(json!({
                "metadata": { "name": "beats" },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "beats" },
                "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": self.0.name }],
            }))
            .await;
    }

    pub async fn forbid(&self) {
        self.0.api::<RoleBinding>().delete("beats", &DeleteParams::default()).await.unwrap();
    }

    /// A token that is valid while a Pod exists. This method creates the Pod.
    pub async fn token(&self, pod: &str) -> String {
        self.0.pod(pod, &[], json!({})).await;
        self.0.plane.token(&self.0.name, "default", Some(pod)).await.unwrap()
    }

    /// A configuration with this user, as in a kubeconfig.
    pub fn config(&self, user: Value) -> Config {
        let mut config = self.0.plane.admin_config("client-test").unwrap();
        config.auth_info = serde_json::from_value(user).unwrap();
        config
    }
}

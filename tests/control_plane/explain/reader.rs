//! Those that ask the leader.

use std::time::Duration;

use beatkeeper_api::explain::{EXPLAIN_AUDIENCE, Explanation, explain_path};
use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{Role, RoleBinding},
};
use serde_json::json;

use crate::{
    secure_metrics::{
        expired::for_audience,
        reader::{Answer, Reader},
    },
    support::{Operator, TestNamespace, eventually},
};

/// How often instances beat.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// An operator of the namespace that explains, with the name of its Pod.
pub fn explaining(ns: &TestNamespace, pod: Option<&str>, more: &[&str]) -> Operator {
    let mut flags = ns.ranges();
    flags.push(format!("--leader-elect-resource-namespace={}", ns.name));
    let own = ["--leader-elect", "--explain-bind-address=127.0.0.1:0"];
    flags.extend(own.iter().chain(more).map(|&flag| flag.to_owned()));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Operator::start_as(pod, &ns.plane.kubeconfig(), &ns.name, &flags)
}

/// Where an operator explains.
pub async fn address(operator: &Operator) -> String {
    operator.address("explain-bind-address").await
}

/// Creates a ServiceAccount that may get the registrations of this namespace, and returns a token for the question.
pub async fn token(ns: &TestNamespace, account: &str) -> String {
    ns.create::<ServiceAccount>(json!({ "metadata": { "name": account } })).await;
    ns.create::<Role>(json!({
        "metadata": { "name": account },
        "rules": [{ "apiGroups": ["beatkeeper.dev"], "resources": ["serviceregistrations"], "verbs": ["get"] }],
    }))
    .await;
    ns.create::<RoleBinding>(json!({
        "metadata": { "name": account },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account },
        "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": ns.name }],
    }))
    .await;
    for_audience(ns, account, EXPLAIN_AUDIENCE).await
}

/// One that may get the registrations of a namespace.
pub struct Asker {
    pub reader: Reader,
    pub token: String,
    namespace: String,
}

impl Asker {
    /// Creates the account.
    pub async fn of(ns: &TestNamespace, operator: &Operator) -> Self {
        Self::with(ns, operator, token(ns, "asker").await).await
    }

    /// One with this token.
    pub async fn with(ns: &TestNamespace, operator: &Operator, token: String) -> Self {
        let reader = Reader::of(&address(operator).await, None);
        Self { reader, token, namespace: ns.name.clone() }
    }

    /// What is answered about an instance of greeter.
    pub async fn asks(&self, instance: &str) -> Option<Answer> {
        let path = explain_path(&self.namespace, "greeter", instance);
        self.reader.read(&path, Some(&self.token)).await
    }

    /// The explanation of an instance of greeter, once the operator knows greeter and the right has an effect.
    pub async fn explains(&self, instance: &str) -> Explanation {
        self.until(instance, "it is explained", |_| true).await
    }

    /// Asks until the explanation is as wanted.
    pub async fn until(
        &self,
        instance: &str,
        what: &str,
        wanted: impl Fn(&Explanation) -> bool,
    ) -> Explanation {
        eventually(what, async || {
            let answer = self.asks(instance).await?;
            if answer.code != 200 {
                return None;
            }
            let explanation: Explanation = serde_json::from_str(&answer.body).unwrap();
            wanted(&explanation).then_some(explanation)
        })
        .await
    }
}

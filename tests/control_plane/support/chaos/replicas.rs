//! Several replicas of the operator for one namespace, of which one leads. Their ServiceAccounts
//! tell them apart.

use std::time::Duration;

use beatkeeper_cluster::{AuditEntry, AuditMark};
use jiff::Timestamp;
use k8s_openapi::api::{core::v1::ServiceAccount, rbac::v1::ClusterRoleBinding};
use kube::{Api, api::PostParams};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Operator, TestNamespace, eventually};

/// The name of the Lease for leader election.
const ELECTION: &str = "beatkeeper";
/// The resources that clients and people read.
const PUBLISHED: [&str; 4] = ["services", "endpoints", "endpointslices", "serviceregistrations"];

/// The replicas of one operator.
pub struct Replicas<'a> {
    ns: &'a TestNamespace,
    began: AuditMark,
    folder: TempDir,
    running: Vec<Replica>,
    started: usize,
}

/// One replica.
pub struct Replica {
    /// The user name in the audit log.
    pub user: String,
    pub operator: Operator,
}

impl<'a> Replicas<'a> {
    /// Starts `count` replicas, and waits until one leads.
    pub async fn start(ns: &'a TestNamespace, count: usize) -> Self {
        let began = ns.plane.audit_mark().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut replicas = Self { ns, began, folder, running: Vec::new(), started: 0 };
        for _ in 0..count {
            replicas.add().await;
        }
        replicas.leader().await;
        replicas
    }

    /// Starts a further replica.
    pub async fn add(&mut self) {
        self.started += 1;
        let account = format!("operator-{}", self.started);
        let user = self.admit(&account).await;
        let config = self.kubeconfig(&account).await;
        let election = format!("--leader-elect-resource-namespace={}", self.ns.name);
        let ranges = self.ns.ranges();
        let mut flags: Vec<&str> = ranges.iter().map(String::as_str).collect();
        flags.extend([
            "--leader-elect",
            "--leader-elect-lease-duration=3s",
            "--leader-elect-renew-deadline=2s",
            "--leader-elect-retry-period=500ms",
            &election,
        ]);
        let operator = Operator::start_as(None, &config, &self.ns.name, &flags);
        self.running.push(Replica { user, operator });
    }

    /// Creates an account with all rights. Returns its name in the audit log.
    async fn admit(&self, account: &str) -> String {
        let namespace = &self.ns.name;
        let _: ServiceAccount = self.ns.create(json!({ "metadata": { "name": account } })).await;
        let binding = serde_json::from_value(json!({
            "metadata": { "name": format!("{namespace}-{account}") },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin",
            },
            "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": namespace }],
        }))
        .unwrap();
        let bindings: Api<ClusterRoleBinding> = Api::all(self.ns.client.clone());
        bindings.create(&PostParams::default(), &binding).await.unwrap();
        format!("system:serviceaccount:{namespace}:{account}")
    }

    async fn kubeconfig(&self, account: &str) -> std::path::PathBuf {
        let token = self.ns.plane.token(&self.ns.name, account, None).await.unwrap();
        let path = self.folder.path().join(account);
        std::fs::write(&path, self.ns.plane.kubeconfig_with(&token, None).unwrap()).unwrap();
        path
    }

    /// The replica that wrote the last claim to lead, and the time of its first claim in a row.
    /// Waits until there is a claim.
    pub async fn leader(&self) -> (String, Timestamp) {
        self.another_than("").await
    }

    /// Waits until a replica other than `user` leads. Returns the leader and the time of its first
    /// claim.
    pub async fn another_than(&self, user: &str) -> (String, Timestamp) {
        eventually("one of the replicas leads", async || {
            let mut claims = self.ns.plane.audit_since(self.began).await.unwrap();
            claims.retain(|entry| self.is_claim(entry));
            let leader = claims.last()?.user.clone();
            // The first of the leader's consecutive claims.
            let since = claims.iter().rev().take_while(|claim| claim.user == leader).last()?.time;
            (leader != user).then_some((leader, since))
        })
        .await
    }

    fn is_claim(&self, entry: &AuditEntry) -> bool {
        entry.namespace == self.ns.name
            && entry.resource == "leases"
            && entry.name == ELECTION
            && entry.succeeded()
    }

    /// Takes a replica out, so that the test can kill, stop or suspend it.
    pub fn take(&mut self, user: &str) -> Replica {
        let place = self.running.iter().position(|replica| replica.user == user);
        self.running.swap_remove(place.expect("it runs"))
    }

    /// Puts a replica back.
    pub fn put_back(&mut self, replica: Replica) {
        self.running.push(replica);
    }

    /// What a replica has tried to write since a mark, except for its own Leases and events.
    /// Refused writes are included.
    pub async fn tried(&self, user: &str, since: AuditMark) -> Vec<AuditEntry> {
        let mut entries = self.ns.plane.audit_since(since).await.unwrap();
        entries.retain(|entry| {
            entry.namespace == self.ns.name
                && entry.user == user
                && PUBLISHED.contains(&entry.resource.as_str())
        });
        entries
    }
}

/// How long `later` was after `moment`.
pub fn after(moment: Timestamp, later: Timestamp) -> Duration {
    later.duration_since(moment).try_into().unwrap_or_default()
}

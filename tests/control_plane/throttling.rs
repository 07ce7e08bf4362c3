//! An API server that answers 429 gives neither evidence nor a refusal.

use std::{path::PathBuf, time::Duration};

use axum::body::Body;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::{
    core::v1::ServiceAccount,
    flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration},
    rbac::v1::ClusterRoleBinding,
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    client::ConfigExt,
    config::Kubeconfig,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    metrics::until,
    support::{Operator, TestNamespace, eventually},
};

const INTERVAL: Duration = Duration::from_secs(1);

/// An account for the operator (the API server never throttles an administrator). While the jail is
/// closed, the API server answers some kinds of its requests with 429.
struct Jail<'a> {
    ns: &'a TestNamespace,
    name: String,
    kubeconfig: PathBuf,
    inmate: Client,
    token: String,
    /// The path at which objects of this kind are created.
    path: String,
    _folder: tempfile::TempDir,
}

impl<'a> Jail<'a> {
    /// Creates an open jail for these verbs of a resource. The verbs include `create`.
    async fn build(ns: &'a TestNamespace, group: &str, resource: &str, verbs: &[&str]) -> Self {
        let path = format!("/apis/{group}/v1/namespaces/{}/{resource}", ns.name);
        let name = format!("{}-jail", ns.name);
        let _: ServiceAccount = ns.create(json!({ "metadata": { "name": "operator" } })).await;
        let account = json!({ "kind": "ServiceAccount", "name": "operator", "namespace": ns.name });
        let binding = json!({
            "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
            "subjects": [account],
        });
        make::<ClusterRoleBinding>(ns, binding).await;
        make::<PriorityLevelConfiguration>(ns, level(&name, 100)).await;
        let schema = json!({
            "metadata": { "name": name },
            "spec": {
                "priorityLevelConfiguration": { "name": name },
                "matchingPrecedence": 10,
                "rules": [{
                    "subjects": [{ "kind": "ServiceAccount", "serviceAccount": {
                        "name": "operator", "namespace": ns.name,
                    } }],
                    "resourceRules": [{
                        "apiGroups": [group], "resources": [resource], "verbs": verbs,
                        "namespaces": [ns.name],
                    }],
                }],
            },
        });
        make::<FlowSchema>(ns, schema).await;
        let token = ns.plane.token(&ns.name, "operator", None).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, ns.plane.kubeconfig_with(&token, None).unwrap()).unwrap();
        let inmate = ns.plane.client_with_token(&token).unwrap();
        Self { ns, name, kubeconfig, inmate, token, path, _folder: folder }
    }

    fn operator(&self) -> Operator {
        let mut flags = self.ns.ranges();
        flags.push("--metrics-bind-address=127.0.0.1:0".to_owned());
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Operator::start_as(None, &self.kubeconfig, &self.ns.name, &flags)
    }

    /// Closes the jail. The priority level then has only the one seat that an idle level always
    /// has. A request whose body never ends holds that seat.
    ///
    /// Each try sends its own request of that kind. One that arrived before the API server had
    /// applied the change of the level holds a seat elsewhere for as long as it is left there.
    async fn close(&self) -> JoinHandle<()> {
        self.set_shares(0).await;
        eventually("the API server sends the operator away", async || {
            let occupant = self.occupy().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            if occupant.is_finished() || self.is_let_in().await {
                occupant.abort();
                return None;
            }
            Some(occupant)
        })
        .await
    }

    /// Sends a request whose body never ends. This needs a plain HTTP client.
    async fn occupy(&self) -> JoinHandle<()> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        let https = config.rustls_https_connector().unwrap();
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(https);
        let endless = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
        let url = config.cluster_url.to_string();
        let request = http::Request::post(format!("{}{}", url.trim_end_matches('/'), self.path))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Body::from_stream(endless))
            .unwrap();
        tokio::spawn(async move { drop(client.request(request).await) })
    }

    /// Opens the jail again.
    async fn open(&self, occupant: JoinHandle<()>) {
        occupant.abort();
        self.set_shares(100).await;
        eventually("the API server lets the operator in", async || {
            self.is_let_in().await.then_some(())
        })
        .await;
    }

    /// Sends a dry-run request of the jailed kind. Returns whether the API server answers in time
    /// and not with 429.
    async fn is_let_in(&self) -> bool {
        let object = json!({ "metadata": { "generateName": "trial-" }, "addressType": "IPv4", "endpoints": [] });
        let request = http::Request::post(format!("{}?dryRun=All", self.path))
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .unwrap();
        // A throttled test client may wait. It does not matter if the request is refused for
        // another reason.
        let answer = tokio::time::timeout(INTERVAL, self.inmate.request_text(request)).await;
        match answer {
            Err(_late) => false,
            Ok(Err(kube::Error::Api(status))) => status.code != 429,
            Ok(_) => true,
        }
    }

    async fn set_shares(&self, shares: i32) {
        let levels: Api<PriorityLevelConfiguration> = Api::all(self.ns.client.clone());
        let patch = Patch::Merge(level(&self.name, shares));
        levels.patch(&self.name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn tear_down(self) {
        let all = DeleteParams::default();
        let client = &self.ns.client;
        Api::<FlowSchema>::all(client.clone()).delete(&self.name, &all).await.unwrap();
        let levels = Api::<PriorityLevelConfiguration>::all(client.clone());
        levels.delete(&self.name, &all).await.unwrap();
        let bindings = Api::<ClusterRoleBinding>::all(client.clone());
        bindings.delete(&self.name, &all).await.unwrap();
    }
}

fn level(name: &str, shares: i32) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "PriorityLevelConfiguration",
        "metadata": { "name": name },
        "spec": { "type": "Limited", "limited": {
            "nominalConcurrencyShares": shares,
            "borrowingLimitPercent": 0,
            "limitResponse": { "type": "Reject" },
        } },
    })
}

async fn make<K>(ns: &TestNamespace, object: Value)
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize,
{
    let object = serde_json::from_value(object).unwrap();
    Api::<K>::all(ns.client.clone()).create(&PostParams::default(), &object).await.unwrap();
}

async fn two_beating(ns: &TestNamespace) -> crate::support::Beats {
    ns.greeter().await;
    let mut beats = ns.beats("greeter");
    for n in 1..=2 {
        let lease = beats.outside(&format!("vm-{n}"), &format!("192.0.2.{n}"));
        beats.start(&lease, INTERVAL).await;
    }
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    beats
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_read_that_was_sent_away_is_no_evidence_and_the_instance_is_held() {
    let ns = TestNamespace::new("jail-reads").await;
    let jail = Jail::build(&ns, "coordination.k8s.io", "leases", &["get", "list", "create"]).await;
    let operator = jail.operator();
    let mut beats = two_beating(&ns).await;
    let occupant = jail.close().await;
    beats.die("vm-2");
    let held = ns.instance("greeter", "vm-2", "Held", "LeaseUnreadable").await;
    assert!(held.message.contains("429") || held.message.contains("no answer"), "{}", held.message);
    ns.published_as_ready("greeter", &["192.0.2.1", "192.0.2.2"]).await;
    let holds = "beatkeeper_holds{reason=\"LeaseUnreadable\"}";
    until(&operator, "the hold is counted", |scrape| scrape.value(holds) == 1.0).await;

    jail.open(occupant).await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    ns.instance("greeter", "vm-2", "Expired", "TTLPassed").await;
    drop(operator);
    jail.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_sent_away_stalls_nothing_and_is_done_when_there_is_room_again() {
    let ns = TestNamespace::new("jail-writes").await;
    let verbs = ["create", "update", "delete"];
    let jail = Jail::build(&ns, "discovery.k8s.io", "endpointslices", &verbs).await;
    let operator = jail.operator();
    let mut beats = two_beating(&ns).await;
    let occupant = jail.close().await;
    beats.die("vm-2");
    let throttled =
        "beatkeeper_api_writes_total{kind=\"EndpointSlice\",verb=\"update\",result=\"throttled\"}";
    eventually("the write was sent away more than once", async || {
        (operator.scrape().await.value(throttled) >= 2.0).then_some(())
    })
    .await;
    let status = ns.registration("greeter").await.status.unwrap();
    assert!(status.conditions.iter().all(|known| known.type_ != "Stalled"), "{status:?}");
    assert!(ns.published("greeter").await.ready().contains("192.0.2.1"));

    jail.open(occupant).await;
    ns.published_as_ready("greeter", &["192.0.2.1"]).await;
    ns.condition("greeter", "Ready", "True", "Published").await;
    let count = "beatkeeper_prune_lag_seconds_count";
    until(&operator, "one prune is counted", |scrape| scrape.value(count) == 1.0).await;
    drop(operator);
    jail.tear_down().await;
}

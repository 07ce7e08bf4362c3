//! An agent reports the state of its instance, and not only that its beats are accepted.

use kube::ResourceExt;
use serde_json::json;

use super::agent::Agent;
use crate::support::{TestNamespace, eventually, http, prometheus::free_port};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_says_that_its_instance_is_published_or_why_it_is_not() {
    let ns = TestNamespace::new("says-published").await;
    let operator = ns.operator();
    ns.greeter().await;
    let agent = Agent::start(&ns, "vm-1", "192.0.2.1");
    agent.says("published as ready (seen ").await;
    let cordon =
        json!({ "metadata": { "annotations": { "beatkeeper.dev/cordoned": "bad disk" } } });
    ns.patch::<k8s_openapi::api::coordination::v1::Lease>("greeter.vm-1", cordon).await;
    agent.says("not published: Cordoned Cordoned: taken out by an operator: bad disk").await;

    let refused = Agent::start(&ns, "vm-2", "203.0.113.1");
    refused.says("not published: Rejected AddressRefused: ").await;
    drop(operator);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_published_when_the_operator_publishes_and_not_before() {
    let ns = TestNamespace::new("page-published").await;
    ns.greeter().await;
    let address = format!("127.0.0.1:{}", free_port());
    let agent = Agent::start_with(
        &ns,
        &["--instance=vm-1", "--address=192.0.2.1", "--health-bind-address", &address],
    );
    agent.says("beating as").await;
    agent.says("not published: Unseen NotListed").await;
    let code = async |path: &str| http::get(&address, path).await.map(|answer| answer.code);
    assert_eq!(code("/readyz").await, Some(200));
    assert_eq!(code("/published").await, Some(503));
    let _operator = ns.operator();
    eventually("the page says published", async || {
        (code("/published").await == Some(200)).then_some(())
    })
    .await;
    assert!(ns.lease("greeter.vm-1").await.unwrap().uid().is_some());
}

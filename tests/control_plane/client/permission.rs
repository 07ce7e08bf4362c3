//! The right to beat is revoked, and granted again.

use std::time::Duration;

use beatkeeper_client::{event::Event, failure::Cause};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use serde_json::json;

use super::{account::Account, address, fleet};
use crate::support::{TestNamespace, eventually};

/// A quarter of the slack between the interval of 1 s and the ttl of 3 s.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_without_the_right_to_beat_names_the_missing_rule_and_returns_with_it() {
    let ns = TestNamespace::new("client-rbac").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let account = Account::of(&ns).await;
    let config = account.config(json!({ "token": account.token("holder").await }));
    let (running, write_log) = fleet::start(&ns, 1, config).await;
    let address = address(1).to_string();
    ns.published_as_ready("greeter", &[&address]).await;
    let before = ns.api::<Lease>().get("greeter.vm-1").await.unwrap();

    account.forbid().await;
    ns.instance("greeter", "vm-1", "Expired", "TTLPassed").await;
    ns.published_as_ready("greeter", &[]).await;
    let refused = write_log.told(|event| match event {
        Event::Failed { failure, .. } if failure.cause == Cause::MissingRule => {
            Some(failure.to_string())
        }
        _ => None,
    });
    let rule = r#"{apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["get", "create", "patch", "delete"]}"#;
    assert!(refused.len() > 2, "it tries again and again: {refused:?}");
    assert!(refused.iter().all(|said| said.contains(rule)), "{refused:?}");

    account.allow().await;
    ns.published_as_ready("greeter", &[&address]).await;
    eventually("it tells that it was out", async || {
        write_log.told(|event| matches!(event, Event::SilentForTtl { .. }).then_some(())).pop()
    })
    .await;
    let pauses = write_log.told(|event| match event {
        Event::Failed { retry_in, .. } => Some(*retry_in),
        _ => None,
    });
    assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE), "{pauses:?}");
    let after = ns.api::<Lease>().get("greeter.vm-1").await.unwrap();
    assert_eq!(after.uid(), before.uid());
    running.stop().await.unwrap();
}

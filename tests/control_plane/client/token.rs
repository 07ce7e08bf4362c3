//! A token in a file is replaced, and the old one is revoked.

use std::{fs, time::Duration};

use beatkeeper_api::ServiceRegistration;
use beatkeeper_client::{event::Event, failure::Cause};
use kube::Api;
use serde_json::json;

use super::{account::Account, address, fleet, no_instance_has_left};
use crate::support::{TestNamespace, eventually};

/// Two ttls, and a little more.
const LONG_ENOUGH: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread")]
async fn a_token_revoked_after_its_file_was_replaced_unpublishes_no_instance() {
    let ns = TestNamespace::new("client-token").await;
    let _operator = ns.operator();
    ns.greeter().await;
    let account = Account::of(&ns).await;
    let (old, new) = (account.token("first").await, account.token("second").await);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, &old).unwrap();
    let config = account.config(json!({ "tokenFile": file.path() }));
    let observer = ns.observe_all().await;
    let (running, write_log) = fleet::start(&ns, 1, config).await;
    ns.published_as_ready("greeter", &[&address(1).to_string()]).await;

    fs::write(&file, &new).unwrap();
    ns.delete_pod("first", 0).await;
    let client = ns.plane.client_with_token(&old).unwrap();
    let registrations: Api<ServiceRegistration> = Api::namespaced(client, &ns.name);
    // The API server caches for some seconds that the token is valid.
    eventually("the API server refuses the old token", async || {
        let refused = registrations.get("greeter").await.err()?;
        matches!(refused, kube::Error::Api(status) if status.code == 401).then_some(())
    })
    .await;
    tokio::time::sleep(LONG_ENOUGH).await;

    no_instance_has_left(&observer, 1);
    let refused = write_log.told(|event| match event {
        Event::Failed { failure, .. } => Some(failure.cause == Cause::Unauthenticated),
        _ => None,
    });
    println!("\ntries that were refused: {}", refused.iter().filter(|refused| **refused).count());
    assert_eq!(running.stats().out, 0);
    running.stop().await.unwrap();
}

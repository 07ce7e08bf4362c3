//! A token in a file is replaced, and the old one is revoked.

use std::{fs, time::Duration};

use beatkeeper_api::ServiceRegistration;
use beatkeeper_client::{event::Event, failure::Cause};
use kube::Api;
use serde_json::json;

use super::{account::Account, address, fleet, nobody_has_left};
use crate::support::{Shop, chaos::Chronicle, eventually};

/// Two ttls, and a little more.
const LONG_ENOUGH: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread")]
async fn a_token_revoked_after_its_file_was_replaced_unpublishes_no_instance() {
    let shop = Shop::open("client-token").await;
    let _operator = shop.operator();
    shop.greeter().await;
    let account = Account::of(&shop).await;
    let (old, new) = (account.token("first").await, account.token("second").await);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, &old).unwrap();
    let config = account.config(json!({ "tokenFile": file.path() }));
    let chronicle = Chronicle::begin(&shop).await;
    let (running, diary) = fleet::start(&shop, 1, config).await;
    shop.published_as_ready("greeter", &[&address(1).to_string()]).await;

    fs::write(&file, &new).unwrap();
    shop.delete_pod("first", 0).await;
    let client = shop.plane.client_with_token(&old).unwrap();
    let registrations: Api<ServiceRegistration> = Api::namespaced(client, &shop.namespace);
    // The API server caches for some seconds that the token is valid.
    eventually("the API server refuses the old token", async || {
        let refused = registrations.get("greeter").await.err()?;
        matches!(refused, kube::Error::Api(status) if status.code == 401).then_some(())
    })
    .await;
    tokio::time::sleep(LONG_ENOUGH).await;

    nobody_has_left(&chronicle, 1);
    let refused = diary.told(|event| match event {
        Event::Failed { failure, .. } => Some(failure.cause == Cause::Unauthenticated),
        _ => None,
    });
    println!("\ntries that were refused: {}", refused.iter().filter(|refused| **refused).count());
    assert_eq!(running.stats().out, 0);
    running.stop().await.unwrap();
}

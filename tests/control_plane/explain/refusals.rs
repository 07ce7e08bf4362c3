//! Nothing is told about a registration to those that may not get it.

use beatkeeper_api::explain::{EXPLAIN_AUDIENCE, explain_path};

use super::reader::{Asker, explaining, token};
use crate::{
    secure_metrics::expired::{expired, for_audience},
    support::TestNamespace,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_another_namespace_a_foreign_token_and_no_token_are_refused() {
    let ns = TestNamespace::new("explain-own").await;
    let elsewhere = TestNamespace::new("explain-elsewhere").await;
    let operator = explaining(&ns, None, &[]);
    let asker = Asker::of(&ns, &operator).await;
    ns.greeter().await;
    asker.explains("vm-1").await;

    let stranger = token(&elsewhere, "stranger").await;
    let of_stranger = Asker::with(&ns, &operator, stranger.clone()).await;
    let refused = of_stranger.asks("vm-1").await.unwrap();
    assert_eq!(refused.code, 403, "{}", refused.body);
    let told = format!(
        "system:serviceaccount:{}:stranger may not read this; it needs the right to get \
         serviceregistrations.beatkeeper.dev greeter in namespace {}\n",
        elsewhere.name, ns.name
    );
    assert_eq!(refused.body, told);
    // Of a registration that does not exist, the stranger learns the same, and the asker that it does not exist.
    let absent = explain_path(&ns.name, "absent", "vm-1");
    let same = asker.reader.read(&absent, Some(&stranger)).await.unwrap();
    assert_eq!((same.code, same.body), (403, told.replace("greeter", "absent")));
    let unknown = asker.reader.read(&absent, Some(&asker.token)).await.unwrap();
    assert_eq!(unknown.code, 404, "{}", unknown.body);

    let path = explain_path(&ns.name, "greeter", "vm-1");
    let none = asker.reader.read(&path, None).await.unwrap();
    assert_eq!((none.code, none.challenge.as_deref()), (401, Some("Bearer")));
    // A token that is good for the API server must not be sent here, and is not taken.
    let own = ns.plane.token(&ns.name, "asker", None).await.unwrap();
    let other = for_audience(&ns, "asker", "vault").await;
    let late = expired(ns.plane, &asker.token);
    for (bad, what) in
        [(own, "API server"), (other, "audience"), (late, "late"), ("x".to_owned(), "none")]
    {
        let refused = asker.reader.read(&path, Some(&bad)).await.unwrap();
        assert_eq!(refused.code, 401, "{what}: {}", refused.body);
        assert!(refused.body.contains(EXPLAIN_AUDIENCE), "{what}: {}", refused.body);
    }
    let long = explain_path(&ns.name, &"g".repeat(254), "vm-1");
    assert_eq!(asker.reader.read(&long, Some(&asker.token)).await.unwrap().code, 400);
    assert!(!operator.logged().contains(&asker.token), "the log has a token");
}

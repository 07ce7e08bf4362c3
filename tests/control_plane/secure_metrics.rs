//! The operator's metrics over TLS, for tokens that the API server lets read them.

pub mod expired;
pub mod reader;

use std::{fs, path::Path, time::Duration};

use beatkeeper_cluster::Options;
use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use self::reader::Reader;
use crate::support::{Operator, TestNamespace, crd, eventually, http};

const PLAIN: &str = "--metrics-bind-address=127.0.0.1:0";
const HEALTH: &str = "--health-probe-bind-address=127.0.0.1:0";
const SECURE: &str = "--metrics-secure";

/// Creates a ServiceAccount.
async fn account(ns: &TestNamespace, name: &str) {
    ns.create::<ServiceAccount>(json!({ "metadata": { "name": name } })).await;
}

/// Lets a ServiceAccount of the namespace read the metrics.
async fn may_read(ns: &TestNamespace, account: &str) {
    let name = format!("{}-metrics-reader", ns.name);
    let role: ClusterRole = serde_json::from_value(json!({
        "metadata": { "name": name },
        "rules": [{ "nonResourceURLs": ["/metrics"], "verbs": ["get"] }],
    }))
    .unwrap();
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": ns.name }],
    }))
    .unwrap();
    let params = PostParams::default();
    Api::all(ns.client.clone()).create(&params, &role).await.unwrap();
    Api::all(ns.client.clone()).create(&params, &binding).await.unwrap();
}

async fn token(ns: &TestNamespace, account: &str) -> String {
    ns.plane.token(&ns.name, account, None).await.unwrap()
}

/// A reader of the operator's metrics that accepts any certificate.
async fn reader(operator: &Operator) -> Reader {
    Reader::of(&operator.address("metrics-bind-address").await, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_reads_the_metrics_if_its_user_may_and_other_requests_are_told_why_not() {
    let ns = TestNamespace::new("secure").await;
    account(&ns, "prometheus").await;
    account(&ns, "stranger").await;
    may_read(&ns, "prometheus").await;
    let operator = ns.operator_with(&[PLAIN, HEALTH, SECURE]);
    let reader = reader(&operator).await;
    let prometheus = token(&ns, "prometheus").await;
    let answer = eventually("the right has reached the API server", async || {
        reader.get(Some(&prometheus)).await.filter(|answer| answer.code == 200)
    })
    .await;
    assert!(answer.body.contains("beatkeeper_leader 1"), "{}", answer.body);
    assert!(answer.body.ends_with("# EOF\n"), "{}", answer.body);

    let none = reader.get(None).await.unwrap();
    assert_eq!((none.code, none.challenge.as_deref()), (401, Some("Bearer")));
    assert!(none.body.contains("Authorization: Bearer TOKEN"), "{}", none.body);

    let stranger = token(&ns, "stranger").await;
    let forbidden = reader.get(Some(&stranger)).await.unwrap();
    assert_eq!(forbidden.code, 403);
    let user = format!("system:serviceaccount:{}:stranger may not read this", ns.name);
    assert!(forbidden.body.contains(&user), "{}", forbidden.body);

    let foreign = expired::for_audience(&ns, "prometheus", "vault").await;
    let late = expired::expired(ns.plane, &prometheus);
    for (bad, what) in [(foreign, "audience"), (late, "expired"), ("x".to_owned(), "no token")] {
        let refused = reader.get(Some(&bad)).await.unwrap();
        assert_eq!(refused.code, 401, "{what}: {}", refused.body);
        assert!(refused.body.contains("does not accept this token"), "{what}: {}", refused.body);
    }
    // The kubelet brings no token, and speaks no TLS.
    let health = operator.address("health-probe-bind-address").await;
    assert_eq!(http::get(&health, "/livez").await.unwrap().code, 200);
    // Over plain HTTP there is no answer.
    let metrics = operator.address("metrics-bind-address").await;
    assert!(http::get(&metrics, "/metrics").await.is_none());
    assert!(!operator.logged().contains(&prometheus), "the log has a token");
}

/// An operator whose metrics the account prometheus may read, a reader of them, and a token of the account.
async fn prometheus(ns: &TestNamespace) -> (Operator, Reader, String) {
    account(ns, "prometheus").await;
    may_read(ns, "prometheus").await;
    let operator = ns.operator_with(&[PLAIN, SECURE]);
    let (reader, token) = (reader(&operator).await, token(ns, "prometheus").await);
    eventually("it may read", async || {
        reader.get(Some(&token)).await.filter(|answer| answer.code == 200)
    })
    .await;
    (operator, reader, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_deleted_account_is_refused_within_half_a_minute() {
    let ns = TestNamespace::new("secure-revoked").await;
    let (_operator, reader, token) = prometheus(&ns).await;
    ns.api::<ServiceAccount>().delete("prometheus", &DeleteParams::default()).await.unwrap();
    eventually("it may not read any more", async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        reader.get(Some(&token)).await.filter(|answer| answer.code == 401)
    })
    .await;
}

/// The number of reviews in the audit log.
async fn reviews(
    plane: &beatkeeper_cluster::ControlPlane,
    mark: beatkeeper_cluster::AuditMark,
) -> usize {
    let entries = plane.audit_since(mark).await.unwrap();
    entries.iter().filter(|entry| entry.resource == "tokenreviews").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_bad_tokens_costs_the_api_server_few_reviews_and_keeps_no_reader_out() {
    // Of its own, because other tests review tokens as well.
    let plane = crd::install_on_own(Options::default()).await;
    let ns = TestNamespace::new_on(plane, "secure-flood").await;
    let (_operator, reader, token) = prometheus(&ns).await;
    let mark = plane.audit_mark().await.unwrap();
    let began = std::time::Instant::now();
    let (mut refused, mut too_many, mut sent) = (0, 0, 0);
    while sent < 2000 {
        match reader.get(Some(&format!("bad-{sent}"))).await.unwrap().code {
            401 => refused += 1,
            429 => too_many += 1,
            code => panic!("{code}"),
        }
        if sent % 200 == 0 {
            assert_eq!(reader.get(Some(&token)).await.unwrap().code, 200, "after {sent}");
        }
        sent += 1;
    }
    let took = began.elapsed().as_secs_f64();
    let allowed = 20.0 + 5.0 * took + 1.0;
    assert!(f64::from(refused) <= allowed, "{refused} in {took} s");
    assert!(too_many > 1000, "{too_many} of {sent}");
    // One more, if the reader's own token was asked about again.
    let asked = reviews(plane, mark).await;
    let most = usize::try_from(refused).unwrap() + 1 + (took / 30.0) as usize;
    assert!(asked <= most, "{asked} reviews for {refused} refusals");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_reviews_a_request_gets_503_and_the_log_says_what_is_missing() {
    let ns = TestNamespace::new("secure-unreviewed").await;
    account(&ns, "operator").await;
    // An account without any right: it may not create TokenReviews.
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let config = ns.plane.kubeconfig_with(&token(&ns, "operator").await, None).unwrap();
    fs::write(&kubeconfig, config).unwrap();
    let operator = Operator::start_as(None, &kubeconfig, &ns.name, &[PLAIN, SECURE]);
    let answer = reader(&operator).await.get(Some("some")).await.unwrap();
    assert_eq!(answer.code, 503, "{}", answer.body);
    let log = operator.logged();
    assert!(log.contains("cannot create a TokenReview"), "{log}");
}

/// Writes a new certificate and its key, and returns the certificate.
fn certify(folder: &Path) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    for (name, text) in
        [("tls.key", made.signing_key.serialize_pem()), ("tls.crt", made.cert.pem())]
    {
        let draft = folder.join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(&draft, folder.join(name)).unwrap();
    }
    made.cert.der().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_that_of_the_files_and_follows_them() {
    let ns = TestNamespace::new("secure-rotated").await;
    account(&ns, "prometheus").await;
    may_read(&ns, "prometheus").await;
    let folder = tempfile::tempdir().unwrap();
    let first = certify(folder.path());
    let path = format!("--metrics-cert-path={}", folder.path().display());
    let operator = ns.operator_with(&[PLAIN, SECURE, &path]);
    let address = operator.address("metrics-bind-address").await;
    let token = token(&ns, "prometheus").await;
    let read = async |root: &[u8]| {
        let reader = Reader::of(&address, Some(root.to_vec()));
        reader.get(Some(&token)).await.map(|answer| answer.code)
    };
    eventually("a client that trusts the first certificate reads", async || {
        (read(&first).await == Some(200)).then_some(())
    })
    .await;
    let next = tempfile::tempdir().unwrap();
    let second = certify(next.path());
    assert_eq!(read(&second).await, None, "the first one is shown");
    for name in ["tls.key", "tls.crt"] {
        fs::rename(next.path().join(name), folder.path().join(name)).unwrap();
    }
    eventually("a client that trusts the second certificate reads", async || {
        (read(&second).await == Some(200)).then_some(())
    })
    .await;
    assert_eq!(read(&first).await, None, "the first one is not shown any more");
    fs::write(folder.path().join("tls.crt"), "nothing").unwrap();
    eventually("what cannot be used is told", async || {
        operator.logged().contains("the certificate of the metrics stays as it was").then_some(())
    })
    .await;
    assert_eq!(read(&second).await, Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_used_end_the_operator_with_the_flag_to_change() {
    let ns = TestNamespace::new("secure-settings").await;
    let folder = tempfile::tempdir().unwrap();
    let missing = format!("--metrics-cert-path={}", folder.path().display());
    for (flags, says) in [
        (vec![PLAIN, SECURE, &missing], "tls.crt, as --metrics-cert-path asks"),
        (vec![PLAIN, &missing], "--metrics-secure"),
        (
            vec![
                "--metrics-bind-address=127.0.0.1:7",
                "--health-probe-bind-address=127.0.0.1:7",
                SECURE,
            ],
            "--metrics-secure needs another --metrics-bind-address",
        ),
    ] {
        let mut operator = ns.operator_with(&flags);
        assert!(!operator.ended().await, "{flags:?}");
        assert!(operator.logged().contains(says), "{flags:?}: {}", operator.logged());
    }
}

//! Several replicas: readers find the leader by the Lease of the election, and the others say that they do not lead.

use beatkeeper_api::explain::{EXPLAIN_ANNOTATION, ExplainEndpoint, explain_path};
use k8s_openapi::api::coordination::v1::Lease;

use super::reader::{Asker, INTERVAL, address, explaining};
use crate::{
    secure_metrics::reader::Reader,
    support::{Operator, TestNamespace, eventually},
};

/// Where the leader explains, as soon as this replica leads.
async fn endpoint(ns: &TestNamespace, replica: &str) -> ExplainEndpoint {
    eventually(&format!("the Lease tells where {replica} explains"), async || {
        let lease = ns.api::<Lease>().get_opt("beatkeeper").await.unwrap()?;
        let told = lease.metadata.annotations?.remove(EXPLAIN_ANNOTATION)?;
        let leads = lease.spec?.holder_identity?.starts_with(replica);
        leads.then(|| serde_json::from_str(&told).unwrap())
    })
    .await
}

async fn port(operator: &Operator) -> u16 {
    address(operator).await.rsplit_once(':').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_names_the_certificate_of_the_leader_and_a_standby_says_that_it_does_not_lead() {
    let ns = TestNamespace::new("explain-pair").await;
    let first = explaining(&ns, Some("first"), &[]);
    let asker = Asker::of(&ns, &first).await;
    ns.greeter().await;
    let told = endpoint(&ns, "first").await;
    assert_eq!(told.port, port(&first).await);
    let _beats = ns.two_published(INTERVAL).await;
    let second = explaining(&ns, Some("second"), &[]);
    let of_second = Asker::with(&ns, &second, asker.token.clone()).await;
    let standing = of_second.until("vm-1", "the second one observes", |it| it.lease.is_some());
    let standing = standing.await;
    assert!(standing.replica.name.starts_with("second-"), "{:?}", standing.replica);
    assert!(!standing.replica.leads && standing.replica.term.is_none(), "{:?}", standing.replica);
    assert_eq!((standing.decision, standing.next_look), (None, None));
    let leading = asker.explains("vm-1").await;
    assert!(leading.replica.leads && leading.replica.name.starts_with("first-"), "{leading:?}");

    // Those that trust this certificate alone reach the leader, and not the other one.
    let path = explain_path(&ns.name, "greeter", "vm-1");
    let pinned = async |operator: &Operator| {
        let reader = Reader::of_own(&address(operator).await, told.certificate.0.clone());
        reader.read(&path, Some(&asker.token)).await.map(|answer| answer.code)
    };
    assert_eq!(pinned(&first).await, Some(200));
    assert_eq!(pinned(&second).await, None);

    assert!(first.stop().await);
    let after = endpoint(&ns, "second").await;
    assert_eq!(after.port, port(&second).await);
    assert_ne!(after.certificate, told.certificate);
    let leading = of_second.until("vm-1", "the second one decides", |it| it.decision.is_some());
    let leading = leading.await;
    assert!(leading.replica.leads && leading.replica.term == Some(1), "{:?}", leading.replica);
    // A leader that explains nothing takes the annotation away.
    assert!(second.stop().await);
    let flags = ns.ranges();
    let election = format!("--leader-elect-resource-namespace={}", ns.name);
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend(["--leader-elect", &election]);
    let _third = Operator::start_as(Some("third"), &ns.plane.kubeconfig(), &ns.name, &flags);
    eventually("the third one leads, and tells nothing", async || {
        let lease = ns.api::<Lease>().get("beatkeeper").await.unwrap();
        let leads = lease.spec?.holder_identity?.starts_with("third");
        let told = lease.metadata.annotations.unwrap_or_default();
        (leads && !told.contains_key(EXPLAIN_ANNOTATION)).then_some(())
    })
    .await;
}

//! Tests of what gateways need of the election, with a paused clock.

use std::time::Duration;

use beatkeeper_api::gateway::GATEWAYS_ANNOTATION;
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};

use super::{api_server::ApiServer, *};
use beatkeeper_core::carriers::frames::Term as Number;

/// A replica that takes part in the election.
struct Replica {
    leadership: Leadership,
    clock: Clock,
    stop: CancellationToken,
    ended: CancellationToken,
    task: JoinHandle<()>,
}

impl Replica {
    fn start(server: &ApiServer, identity: &str) -> Self {
        let clock = Clock::of_the_runtime(|| jiff::Timestamp::UNIX_EPOCH);
        let telemetry = Telemetry::new(clock, false);
        let durations = [5000, 3000, 500].map(Duration::from_millis);
        let settings = ElectionSettings {
            durations: Durations::new(durations[0], durations[1], durations[2]).expect("valid"),
            name: "beatkeeper".to_owned(),
            namespace: None,
        };
        let election = Election::new(&server.client(), &settings, identity.to_owned(), &telemetry);
        let leadership = election.leadership();
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let task = tokio::spawn(election.run(stop.clone(), ended.clone()));
        Self { leadership, clock, stop, ended, task }
    }

    /// Starts a replica, and waits until it leads.
    async fn leading(server: &ApiServer, identity: &str) -> Self {
        let replica = Self::start(server, identity);
        replica.leadership.leads().await;
        replica
    }

    /// Gives the lead up.
    async fn stop(self) {
        self.stop.cancel();
        self.ended.cancel();
        self.task.await.expect("it ends");
    }

    fn term(&self) -> Number {
        self.leadership.claim().expect("it leads").term
    }

    async fn list(&self, gateways: &[&str]) -> bool {
        self.leadership.list(self.term(), listed(gateways)).await
    }
}

fn listed(pods: &[&str]) -> BTreeSet<Incarnation> {
    pods.iter().map(|&pod| Incarnation { pod: pod.into(), epoch: u64::MAX }).collect()
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

fn annotated(list: &str) -> Value {
    json!({ "metadata": { "annotations": { GATEWAYS_ANNOTATION: list } } })
}

/// Another replica has taken the Lease.
fn taken(number: i32) -> Value {
    json!({ "spec": { "holderIdentity": "other", "leaseTransitions": number } })
}

#[tokio::test(start_paused = true)]
async fn a_list_is_written_at_once_and_survives_renewals_and_a_hand_over() {
    let server = ApiServer::default();
    let first = Replica::leading(&server, "first").await;
    assert_eq!(first.leadership.listed(), None);
    pass(100).await;
    let began = first.clock.now();
    assert!(first.list(&["a", "b"]).await);
    assert!(first.clock.now().since(began) < Duration::from_millis(100), "before the next renewal");
    let list = server.list().expect("a list");
    pass(10_000).await;
    assert_eq!(server.list().as_deref(), Some(&*list));
    let second = Replica::start(&server, "second");
    first.stop().await;
    second.leadership.leads().await;
    assert_eq!(second.leadership.listed(), Some(listed(&["a", "b"])));
    assert_eq!(second.term(), Number(1));
    pass(2000).await;
    assert_eq!(server.list(), Some(list));
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_is_a_list() {
    let server = ApiServer::default();
    let first = Replica::leading(&server, "first").await;
    assert!(first.list(&["a"]).await && first.list(&[]).await);
    first.stop().await;
    let second = Replica::leading(&server, "second").await;
    assert_eq!(second.leadership.listed(), Some(listed(&[])));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_was_written_after_the_last_read_of_a_standby_is_not_missed() {
    let server = ApiServer::default();
    server.store().write(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "beatkeeper" },
        "spec": { "holderIdentity": "other", "leaseTransitions": 4, "leaseDurationSeconds": 5 },
    }));
    let standby = Replica::start(&server, "standby");
    // The last renewal of the leader comes right before the standby claims.
    pass(4740).await;
    server.store().patch(annotated(r#"[{"pod":"late","epoch":"18446744073709551615"}]"#));
    standby.leadership.leads().await;
    assert_eq!(standby.leadership.listed(), Some(listed(&["late"])));
    assert_eq!(standby.term(), Number(5));
}

#[tokio::test(start_paused = true)]
async fn without_gateways_no_list_is_written_and_one_that_is_there_stays() {
    let server = ApiServer::default();
    let first = Replica::leading(&server, "first").await;
    pass(2000).await;
    assert_eq!(server.list(), None);
    server.store().patch(annotated("left by another version"));
    first.stop().await;
    let second = Replica::leading(&server, "second").await;
    pass(2000).await;
    assert_eq!(server.list().as_deref(), Some("left by another version"));
    assert_eq!(second.leadership.listed(), None, "what cannot be read is no list");
    assert!(second.list(&["a"]).await);
    second.stop().await;
    let third = Replica::leading(&server, "third").await;
    assert_eq!(third.leadership.listed(), Some(listed(&["a"])));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_not_written_is_told() {
    let server = ApiServer::default();
    let replica = Replica::leading(&server, "replica").await;
    let term = replica.term();
    // A write that is refused.
    server.store().patch(json!({ "metadata": { "labels": { "touched": "true" } } }));
    assert!(!replica.list(&["a"]).await);
    assert!(replica.list(&["a"]).await, "the next one succeeds");
    // A term that was never begun.
    assert!(!replica.leadership.list(Number(term.0 + 1), listed(&["b"])).await);
    // No answer, and then no term.
    server.store().is_down = true;
    assert!(!replica.list(&["b"]).await);
    let pause = timeout(Duration::from_secs(60), replica.leadership.list(term, listed(&["b"])));
    assert_eq!(pause.await, Ok(false));
    assert_eq!(replica.leadership.claim(), None);
    assert_eq!(replica.leadership.list(term, listed(&["b"])).now_or_never(), None, "it is asked");
    server.store().is_down = false;
    replica.leadership.leads().await;
    assert_eq!(replica.leadership.listed(), Some(listed(&["a"])));
    assert!(replica.term() > term, "the claim had lapsed");
}

#[tokio::test(start_paused = true)]
async fn a_term_is_confirmed_by_a_read_that_was_sent_after_the_question() {
    let server = ApiServer::default();
    let replica = Replica::leading(&server, "replica").await;
    let (term, asked) = (replica.term(), replica.clock.now());
    let reads = server.store().reads;
    let sent = replica.leadership.confirm(term).await.expect("it leads");
    assert!(asked <= sent && sent < replica.clock.now());
    assert_eq!(server.store().reads, reads + 1);
    pass(1).await;
    let later = replica.leadership.confirm(term).await.expect("it leads");
    assert!(later > sent, "an earlier read says nothing");
    assert_eq!(replica.leadership.confirm(Number(term.0 + 1)).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_term_is_not_confirmed_once_another_replica_has_taken_over() {
    let server = ApiServer::default();
    let replica = Replica::leading(&server, "replica").await;
    let term = replica.term();
    server.store().patch(taken(1));
    assert!(replica.leadership.holds(), "it does not know yet");
    assert_eq!(replica.leadership.confirm(term).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_term_is_not_confirmed_by_another_number_or_holder_or_without_an_answer() {
    let server = ApiServer::default();
    let replica = Replica::leading(&server, "replica").await;
    let term = replica.term();
    let whole = server.store().lease.clone().expect("a Lease");
    server.store().patch(json!({ "spec": { "leaseTransitions": 7 } }));
    assert_eq!(replica.leadership.confirm(term).await, None);
    server.store().lease = None;
    assert_eq!(replica.leadership.confirm(term).await, None);
    server.store().write(whole.clone());
    server.store().patch(json!({ "spec": { "holderIdentity": "other" } }));
    assert_eq!(replica.leadership.confirm(term).await, None);
    server.store().write(whole);
    assert!(replica.leadership.confirm(term).await.is_some());
    server.store().is_down = true;
    assert_eq!(replica.leadership.confirm(term).await, None);
}

#[tokio::test(start_paused = true)]
async fn those_that_ask_during_a_read_share_the_next_one() {
    let server = ApiServer::default();
    let replica = Replica::leading(&server, "replica").await;
    let (term, leadership) = (replica.term(), &replica.leadership);
    let reads = server.store().reads;
    let late = || async {
        pass(1).await;
        let asked = replica.clock.now();
        leadership.confirm(term).await.expect("it leads") >= asked
    };
    let (first, others) =
        tokio::join!(leadership.confirm(term), futures::future::join_all((0..20).map(|_| late())));
    assert!(first.is_some() && others.into_iter().all(|after| after));
    assert_eq!(server.store().reads, reads + 2);
}

#[tokio::test(start_paused = true)]
async fn a_term_that_gateways_know_from_another_replica_is_exceeded_at_once() {
    let server = ApiServer::default();
    let replica = Replica::leading(&server, "replica").await;
    let (first, asked) = (replica.leadership.leads().await, replica.clock.now());
    assert!(replica.list(&["a"]).await);
    assert_eq!(replica.term(), Number(0));
    replica.leadership.exceed(Number(5));
    replica.leadership.lost(first).await;
    assert_eq!(replica.term(), Number(6));
    assert_eq!(replica.leadership.listed(), Some(listed(&["a"])));
    assert!(replica.clock.now().since(asked) < Duration::from_millis(100));
    assert!(!replica.leadership.list(Number(0), listed(&["b"])).await, "of the term before");
    // What is lower changes nothing.
    let second = replica.leadership.leads().await;
    replica.leadership.exceed(Number(3));
    pass(2000).await;
    assert_eq!((replica.leadership.leads().await, replica.term()), (second, Number(6)));
    // The next claim of a standby is above what it was told.
    let standby = Replica::start(&server, "standby");
    standby.leadership.exceed(Number(40));
    pass(100).await;
    replica.stop().await;
    standby.leadership.leads().await;
    assert_eq!(standby.term(), Number(41));
}

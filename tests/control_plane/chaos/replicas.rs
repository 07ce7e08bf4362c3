//! Two replicas of the operator: the leader is killed, stopped, and suspended until another leads.

use std::time::Duration;

use jiff::Timestamp;

use crate::support::{
    Operator,
    chaos::{ChaosFixture, Replicas, Scale, after},
};

/// Longer than the time for which the claim of a silent leader holds.
const PAST_ITS_CLAIM: Duration = Duration::from_secs(6);

/// The leader ends. Another replica takes over, prunes the instances that died meanwhile, and removes no other.
async fn ended(case: &str, scale: Scale, end: impl AsyncFn(Operator)) {
    let mut chaos = ChaosFixture::new(case, scale).await;
    let ns = chaos.ns.clone();
    let mut replicas = Replicas::start(&ns, 2).await;
    for _ in 0..scale.rounds {
        chaos.fill().await;
        let (leader, _) = replicas.leader().await;
        let at = Timestamp::now();
        end(replicas.take(&leader).operator).await;
        chaos.die(2, Duration::from_secs(1)).await;
        let (_, claimed) = replicas.another_than(&leader).await;
        println!("\n{case}: claimed {:?} after its end", after(at, claimed));
        replicas.add().await;
    }
    chaos.settle(scale.rounds).await;
}

async fn killed(scale: Scale) {
    let kill = async |leader: Operator| leader.kill();
    ended("leader killed, a standby takes over", scale, kill).await;
}

/// As in an upgrade.
async fn stopped(scale: Scale) {
    let stop = async |leader: Operator| assert!(leader.stop().await, "exit code 0");
    ended("leader stopped with SIGTERM, a standby takes over", scale, stop).await;
}

/// The suspended leader resumes and still believes that it leads. An instance dies while it
/// resumes.
async fn suspended(scale: Scale) {
    let case = "leader suspended past its claim, and resumed";
    let mut chaos = ChaosFixture::new(case, scale).await;
    let ns = chaos.ns.clone();
    let mut replicas = Replicas::start(&ns, 2).await;
    for _ in 0..scale.rounds {
        chaos.fill().await;
        let (leader, _) = replicas.leader().await;
        let zombie = replicas.take(&leader);
        zombie.operator.suspend();
        chaos.die(2, PAST_ITS_CLAIM).await;
        let (heir, _) = replicas.another_than(&leader).await;
        let mark = ns.plane.audit_mark().await.unwrap();
        zombie.operator.resume();
        chaos.die(2, Duration::from_secs(1)).await;
        chaos.fill().await;
        let tried = replicas.tried(&leader, mark).await;
        assert!(tried.is_empty(), "it wrote although another leads: {tried:?}");
        let (still, _) = replicas.leader().await;
        assert_eq!(still, heir, "it took nothing back");
        replicas.put_back(zombie);
    }
    chaos.settle(scale.rounds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_from_a_killed_leader_and_no_survivor_is_unpublished() {
    killed(Scale::thirty(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos"]
async fn a_leader_that_is_killed_ten_times_in_full() {
    killed(Scale::thirty(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_leader_hands_over_at_once_and_no_survivor_is_unpublished() {
    stopped(Scale::thirty(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos"]
async fn a_leader_that_is_stopped_ten_times_in_full() {
    stopped(Scale::thirty(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_wakes_after_its_claim_has_passed_on_writes_nothing() {
    suspended(Scale::thirty(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos"]
async fn a_leader_that_is_suspended_ten_times_in_full() {
    suspended(Scale::thirty(10)).await;
}

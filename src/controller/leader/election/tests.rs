//! Tests of the election's I/O.

use std::time::Duration;

use futures::FutureExt;

use super::*;
use crate::kube_client;
use beatkeeper_core::replica::leader::{Durations, LeaderLease};

mod api_server;
mod gateways;

fn election() -> Election {
    // No request is sent to this address.
    let config = kube::Config::new("http://127.0.0.1:1".parse().expect("a URL"));
    let options = kube_client::Options::of("test", || jiff::Timestamp::UNIX_EPOCH);
    let client = kube_client::connect(config, &options).expect("one");
    let second = Duration::from_secs(1);
    let settings = ElectionSettings {
        durations: Durations::new(second, second / 10, second / 100).expect("valid"),
        name: "beatkeeper".to_owned(),
        namespace: None,
    };
    let telemetry = Telemetry::new(Clock::start(), false);
    Election::new(&client, &settings, "replica-0".to_owned(), &telemetry)
}

fn renewed(election: &mut Election, version: u64) {
    let lease = LeaderLease {
        version: version.to_string(),
        holder: election.identity.clone(),
        duration: Duration::from_secs(1),
        transitions: 0,
    };
    let now = election.clock.now();
    election.candidate.wrote(lease, now, now);
    election.publish_state();
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_lapsed_before_it_was_renewed_begins_a_new_term() {
    let mut election = election();
    let leadership = election.leadership();
    renewed(&mut election, 1);
    let first = leadership.leads().await;
    renewed(&mut election, 2);
    assert_eq!(leadership.leads().await, first, "renewed in time");
    while leadership.holds() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    renewed(&mut election, 3);
    assert_eq!(leadership.lost(first).now_or_never(), Some(()));
    assert_ne!(leadership.leads().await, first);
}

#[tokio::test(start_paused = true)]
async fn a_claim_with_another_number_begins_a_new_term() {
    let mut election = election();
    let leadership = election.leadership();
    renewed(&mut election, 1);
    let first = leadership.leads().await;
    let lease = LeaderLease {
        version: "2".to_owned(),
        holder: election.identity.clone(),
        duration: Duration::from_secs(1),
        transitions: 1,
    };
    let now = election.clock.now();
    election.candidate.wrote(lease, now, now);
    election.publish_state();
    assert_eq!(leadership.lost(first).now_or_never(), Some(()));
    assert_eq!(leadership.claim().map(|claim| claim.term), Some(frames::Term(1)));
}

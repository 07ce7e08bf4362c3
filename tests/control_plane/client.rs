//! An instance that beats is never removed because of a fault of the client. The client is the SDK
//! in the test process, or an agent in its own process, beside a real operator.

mod account;
pub mod agent;
mod conflict;
mod fleet;
mod footprint;
mod gateway;
mod hands;
mod health_kept;
mod many;
mod orphans;
mod outage;
mod permission;
mod reload;
mod replaced;
mod standing;
mod suspended;
mod targets;
mod token;
mod unread;

use std::{collections::BTreeMap, net::Ipv4Addr};

use beatkeeper_test_support::{History, SliceObserver};

/// The address of the n-th instance. 198.18.0.0/15 is reserved for tests and large enough.
fn address(n: usize) -> Ipv4Addr {
    let [_, _, high, low] = u32::try_from(n).unwrap().to_be_bytes();
    Ipv4Addr::new(198, 18, high, low)
}

/// Panics if any of `count` instances has left the ready endpoints after it came.
fn no_instance_has_left(observer: &SliceObserver, count: usize) {
    let stays: BTreeMap<_, _> = observer.look(History::stays);
    let left: Vec<_> =
        stays.iter().filter(|(_, stays)| stays.iter().any(|stay| stay.to.is_some())).collect();
    assert!(left.is_empty(), "{} of {count} have left: {left:?}", left.len());
    assert_eq!(stays.len(), count, "some never came");
    assert_eq!(observer.look(History::gaps), 0, "there are states that the observer did not see");
}

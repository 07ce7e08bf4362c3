//! What the tests of the Lease share.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;

use super::{HealthReport, Identity, LeaseVersion, Location, Owner};

pub(super) fn at(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).expect("in range")
}

/// An instance outside the cluster with these addresses.
pub(super) fn identity(addresses: &[&str]) -> Identity {
    let addresses = addresses.iter().map(|ip| ip.parse().expect("an IP")).collect();
    Identity {
        namespace: "shop".to_owned(),
        registration: "greeter".to_owned(),
        instance: "vm-1".to_owned(),
        home: Location::Outside(addresses),
        version: None,
        metadata: BTreeMap::new(),
    }
}

pub(super) fn outside() -> Identity {
    identity(&[])
}

pub(super) fn pod(uid: &str) -> Owner {
    Owner::Pod { name: "vm-1".to_owned(), uid: uid.to_owned() }
}

/// The Lease of [`outside`], as the API server returns it.
pub(super) fn lease(owner: &Owner) -> Lease {
    let mut lease = outside().new_lease(owner, 3, &HealthReport::default(), "host/1", at(1));
    lease.metadata.uid = Some("lease-uid".to_owned());
    lease.metadata.resource_version = Some("7".to_owned());
    lease
}

pub(super) fn held(transitions: i32) -> LeaseVersion {
    let transitions = Some(transitions);
    LeaseVersion { uid: "lease-uid".to_owned(), version: "7".to_owned(), transitions }
}

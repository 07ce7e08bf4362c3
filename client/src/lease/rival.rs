//! What is known of another process that beats under the same name. Without I/O.

use beatkeeper_api::heartbeat::{self, RIVAL_ANNOTATION};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use rand::{TryRngCore, rngs::OsRng};

use super::{
    identity::Identity,
    version::{LeaseVersion, renewed},
};
use crate::names::hostname;

/// Makes a name for this run of the process: its host, and a number that no other run has.
pub fn incarnation() -> String {
    // The number comes from the kernel: a copy of this process, as in a snapshot of its machine, has the same
    // generators in memory.
    let number = OsRng.try_next_u32().unwrap_or_else(|_| rand::random());
    format!("{}/{number:08x}", hostname())
}

/// Makes the note of a process that stands by: its claim, and a text that changes each time. From the
/// changes, others see that the process still runs.
pub fn announcement(identity: &Identity, incarnation: &str, at: Timestamp) -> String {
    let addresses = identity.addresses();
    let at_addresses = addresses.map(|all| format!(" at {all}")).unwrap_or_default();
    format!("{incarnation}{at_addresses}; {}", heartbeat::renew_time(at))
}

/// Whether the Lease names the same addresses as this identity.
pub fn claims_the_same(identity: &Identity, lease: &Lease) -> bool {
    named_addresses(lease) == identity.addresses().as_deref()
}

/// Returns the addresses that a Lease names.
pub fn named_addresses(lease: &Lease) -> Option<&str> {
    annotation(lease, heartbeat::ADDRESSES_ANNOTATION)
}

/// Returns the note that a rival has left.
pub fn rival_note(lease: &Lease) -> Option<&str> {
    annotation(lease, RIVAL_ANNOTATION)
}

fn annotation<'a>(lease: &'a Lease, name: &str) -> Option<&'a str> {
    lease.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The part of a Lease that changes while its holder lives.
pub fn liveness_text(lease: &Lease) -> Option<String> {
    let LeaseVersion { uid, transitions, .. } = LeaseVersion::of(lease);
    let renewed = renewed(lease).map(heartbeat::renew_time).unwrap_or_default();
    Some(format!("{uid} {} {renewed}", transitions.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::fixtures::{at, identity};

    #[test]
    fn each_process_has_a_different_name() {
        assert_ne!(incarnation(), incarnation());
        let reported = announcement(&identity(&["192.0.2.1"]), "vm-a/1", at(0));
        assert_eq!(reported, "vm-a/1 at 192.0.2.1; 1970-01-01T00:00:00.000000Z");
    }
}

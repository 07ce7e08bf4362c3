//! A liveness index full of instances in steady state.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use beatkeeper_api::heartbeat::{Health, lease_name};
use beatkeeper_core::liveness::rhythm::Wanted;
use beatkeeper_core::vocabulary::address::Named;
use beatkeeper_core::vocabulary::monotonic_time::MonotonicTime;
use beatkeeper_core::vocabulary::pace::Pace;
use beatkeeper_core::{
    liveness::index::{Basis, CommitResult, Index, LeaseDecision, NextBeat, Outcome},
    vocabulary::key::Key,
};
use beatkeeper_core::{
    objects::heartbeat::{Heartbeat, LeaseContent, Origin},
    vocabulary::version::{Token, Version},
};

/// The ttl and the interval of all instances.
const PACE: Pace = Pace { ttl: Duration::from_secs(30), interval: Duration::from_secs(10) };
/// The namespace of all instances.
pub const NAMESPACE: &str = "shop";

/// A number of instances, in a number of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// The number of all instances.
    pub instances: usize,
    /// The number of services; all have the same size.
    pub services: usize,
}

impl Size {
    /// A thousand to a million instances, in few big services and in many small ones.
    pub const ALL: [Self; 6] = [
        Self { instances: 1_000, services: 1 },
        Self { instances: 1_000, services: 10 },
        Self { instances: 100_000, services: 10 },
        Self { instances: 100_000, services: 1_000 },
        Self { instances: 1_000_000, services: 100 },
        Self { instances: 1_000_000, services: 10_000 },
    ];
}

/// An index, with what is needed to make the next beat of each instance.
pub struct Instances {
    /// The index.
    pub index: Index,
    pub(crate) size: Size,
    /// The number of the last round of beats, and of the millisecond in which it began.
    pub(crate) beats: u64,
}

impl Instances {
    /// Makes an index that has read all instances from its first list, has seen each beat since, and has decided
    /// that another beat changes nothing.
    pub fn new(size: Size) -> Self {
        let mut instances = Self { index: Index::default(), size, beats: 0 };
        instances.index.begin_list();
        instances.all_beat();
        instances.index.end_list();
        instances.all_beat();
        for service in 0..size.services {
            instances.settle(&service_key(service));
        }
        instances
    }

    /// Makes all instances beat in the millisecond with the number of the round.
    fn all_beat(&mut self) {
        self.beats += 1;
        let now = MonotonicTime::from_millis(self.beats);
        for instance in 0..self.size.instances {
            let beat = self.beat(instance);
            self.index.observe(NAMESPACE, beat, now);
        }
    }

    fn settle(&mut self, service: &Key) {
        let quiet: Vec<LeaseDecision> = self
            .index
            .records_of(service)
            .into_iter()
            .map(|record| LeaseDecision {
                carried_at: record.carried_at(),
                lease: record.lease,
                token: record.token,
                outcome: Outcome::Published(Basis::Beats),
                next_beat: NextBeat::IsNoOp,
                placed: true,
                wanted: Wanted::at(PACE, None),
            })
            .collect();
        let settlement = self.index.commit(service, &quiet, MonotonicTime::from_millis(self.beats));
        assert_eq!(settlement, CommitResult::Accepted);
    }

    /// Makes the next round of beats as the watch delivers them: of `count` instances that are far from each other
    /// in the index.
    pub fn round(&mut self, count: usize) -> Vec<Heartbeat> {
        // Coprime to all sizes, so that the steps reach every instance before they reach one twice.
        const STEP: usize = 7_919;
        let first = self.beats as usize * 31;
        self.beats += 1;
        (0..count).map(|n| self.beat((first + n * STEP) % self.size.instances)).collect()
    }

    fn beat(&self, instance: usize) -> Heartbeat {
        beat(instance % self.size.services, instance, self.beats)
    }
}

/// Returns the key of a service by its number.
pub fn service_key(service: usize) -> Key {
    Key::new(NAMESPACE, format!("service-{service}"))
}

/// Returns a beat of an instance outside the cluster. Each `round` is a different beat.
pub fn beat(service: usize, instance: usize, round: u64) -> Heartbeat {
    let Key { name, .. } = service_key(service);
    let holder = format!("vm-{instance}");
    Heartbeat {
        lease: lease_name(&name, &holder),
        registration: Some(name),
        token: Token { uid: uid(instance), renewed: i64::try_from(round).ok() },
        version: Version(round * 10_000_000 + instance as u64),
        second_hand: false,
        content: LeaseContent {
            rival: None,
            holder: Some(holder),
            origin: Origin::Outside,
            owned: false,
            health: Ok(Health::Passing),
            note: None,
            addresses: vec![Named::Address(address(instance))],
            cordoned: None,
            deleting: false,
            duration: Some(Duration::from_secs(10)),
        },
    }
}

/// Returns the address of an instance.
pub fn address(instance: usize) -> IpAddr {
    let bits = u32::try_from(instance).unwrap_or(u32::MAX);
    Ipv4Addr::from_bits(0x0a00_0001_u32.wrapping_add(bits)).into()
}

/// Returns a uid as long as those of the API server.
fn uid(instance: usize) -> Arc<str> {
    format!("00000000-0000-4000-8000-{instance:012}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_of_beats_is_read_as_beats_and_wakes_no_registration() {
        let mut instances = Instances::new(Size { instances: 1_000, services: 10 });
        for round in 0..3 {
            for beat in instances.round(500) {
                let observed = instances.index.observe(
                    NAMESPACE,
                    beat,
                    MonotonicTime::from_millis(10 + round),
                );
                assert!(observed.beat && observed.wake.is_empty(), "{observed:?}");
            }
        }
    }

    #[test]
    fn the_crowd_is_as_large_as_asked_for() {
        let instances = Instances::new(Size { instances: 1_000, services: 10 });
        let sizes: Vec<usize> =
            instances.index.registrations().map(|(_, all)| all.count()).collect();
        assert_eq!(sizes, [100; 10]);
    }
}

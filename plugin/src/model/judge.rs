//! The state of an instance that the status of its registration does not list.
//!
//! A status lists at most 100 instances, those with problems first. The others are judged here, from the same objects,
//! but without the evidence that only the operator has: it alone decides whether silence counts as death.

use std::time::Duration;

use beatkeeper_api::{InstanceState, heartbeat::Health};
use beatkeeper_core::{objects::heartbeat::LeaseContent, vocabulary::reason::Reason};

use super::instance::{FoundPod, Published};

/// What is known of an instance.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The content of its Lease; `None` if it has none.
    pub content: Option<&'a LeaseContent>,
    /// Whether it has ever beaten.
    pub has_beaten: bool,
    /// How long it has been silent, as far as that is known.
    pub silent: Option<Duration>,
    /// How the slices contain it.
    pub published: Published,
    /// Its Pod, if that was read.
    pub pod: Option<&'a FoundPod>,
    /// How long it may be silent.
    pub ttl: Duration,
    /// How long after its last beat it counts as overdue.
    pub overdue_after: Duration,
}

/// The state and its reason.
pub fn judge(known: &Known<'_>) -> (InstanceState, Reason) {
    let Some(content) = known.content else {
        return (InstanceState::Waiting, Reason::NeverBeat);
    };
    if content.cordoned.is_some() {
        return (InstanceState::Cordoned, Reason::Cordoned);
    }
    if !known.has_beaten {
        return (InstanceState::Waiting, Reason::NeverBeat);
    }
    let overdue = known.silent.is_some_and(|silent| silent >= known.overdue_after);
    match known.published {
        Published::Ready if overdue => (InstanceState::Ready, Reason::BeatOverdue),
        Published::Ready => (InstanceState::Ready, Reason::Beating),
        Published::Draining if known.pod.is_some_and(|pod| pod.deleting) => {
            (InstanceState::Draining, Reason::PodTerminating)
        }
        Published::Draining => (InstanceState::Draining, Reason::HealthDraining),
        Published::NotReady => (InstanceState::NotReady, not_ready(content)),
        Published::No if known.silent.is_some_and(|silent| silent >= known.ttl) => {
            (InstanceState::Expired, Reason::TTLPassed)
        }
        Published::No => (InstanceState::Waiting, Reason::AwaitingBeat),
    }
}

fn not_ready(content: &LeaseContent) -> Reason {
    match content.health {
        Err(_) => Reason::HealthUnknown,
        Ok(Health::Failing) => Reason::HealthFailing,
        Ok(Health::Passing | Health::Draining) => Reason::PodNotReady,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beatkeeper_core::objects::heartbeat::Origin;

    fn content() -> LeaseContent {
        LeaseContent {
            holder: Some("vm-1".to_owned()),
            origin: Origin::Outside,
            owned: false,
            health: Ok(Health::Passing),
            note: None,
            addresses: Vec::new(),
            rival: None,
            cordoned: None,
            deleting: false,
            duration: None,
        }
    }

    fn known(content: Option<&LeaseContent>, silent: u64, published: Published) -> Known<'_> {
        Known {
            content,
            has_beaten: true,
            silent: Some(Duration::from_secs(silent)),
            published,
            pod: None,
            ttl: Duration::from_secs(30),
            overdue_after: Duration::from_secs(20),
        }
    }

    #[test]
    fn an_instance_is_judged_by_its_lease_and_its_endpoint() {
        use InstanceState::{Cordoned, Draining, Expired, NotReady, Ready, Waiting};
        let sound = content();
        let failing = LeaseContent { health: Ok(Health::Failing), ..content() };
        let cordoned = LeaseContent { cordoned: Some("disk".to_owned()), ..content() };
        let cases = [
            (known(Some(&sound), 1, Published::Ready), Ready, "Beating"),
            (known(Some(&sound), 20, Published::Ready), Ready, "BeatOverdue"),
            (known(Some(&sound), 29, Published::No), Waiting, "AwaitingBeat"),
            (known(Some(&sound), 30, Published::No), Expired, "TTLPassed"),
            (known(Some(&failing), 1, Published::NotReady), NotReady, "HealthFailing"),
            (known(Some(&sound), 1, Published::NotReady), NotReady, "PodNotReady"),
            (known(Some(&sound), 1, Published::Draining), Draining, "HealthDraining"),
            (known(Some(&cordoned), 1, Published::No), Cordoned, "Cordoned"),
            (known(None, 1, Published::No), Waiting, "NeverBeat"),
            (
                Known { has_beaten: false, ..known(Some(&sound), 1, Published::No) },
                Waiting,
                "NeverBeat",
            ),
        ];
        for (known, state, reason) in cases {
            let (found, why) = judge(&known);
            assert_eq!((found, why.as_str()), (state, reason), "{known:?}");
        }
    }
}

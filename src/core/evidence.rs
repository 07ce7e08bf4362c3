//! What speaks for taking silence for death, and what against it, beside the Leases themselves.

use super::{
    flow::{Broken, Guard},
    index::{Index, Record},
    moment::Moment,
    path::Path,
    proven::{Pace, Proven},
    registration::Registration,
    ttl::TtlHistory,
    world::World,
};

/// The evidence on which silent instances are judged (L2, L3, L6).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// What is proven of the past.
    pub proven: Proven,
    /// When the latest probe was sent that has come back; none before the first one.
    pub probed: Option<Moment>,
    /// Why no probe has come back although one was asked for.
    pub unproven: Option<String>,
    /// Where the way of the beats is broken, if it is.
    pub broken: Option<Broken>,
}

impl Evidence {
    /// Gathers the evidence for deciding about these records. The guard is asked only when somebody's
    /// ttl has passed, and from then on until the way is whole again: it looks at every instance there
    /// is.
    #[expect(clippy::too_many_arguments, reason = "all that is known")]
    pub fn gather(
        registration: &Registration,
        ttl: &TtlHistory,
        records: &[Record],
        path: &Path,
        guard: &mut Guard,
        index: &Index,
        world: &World,
        now: Moment,
    ) -> Self {
        let namespace = &registration.key.namespace;
        let pace = registration.pace();
        let mut proven = guard.proven(path.proven(), namespace, pace);
        let late = |proven: &Proven| {
            records.iter().filter(|record| record.expired_at.is_none()).any(|record| {
                let pace = Pace { ttl: ttl.at(record.seen), ..pace };
                now >= proven.deadline(record.silence(), pace)
            })
        };
        let mut broken = None;
        if late(&proven) || guard.is_to_be_asked_again(namespace, pace) {
            broken = guard.ask(namespace, pace, index, |key| world.pace_of(key), now);
            // When beats flow again that has made a gap.
            proven = guard.proven(path.proven(), namespace, pace);
        }
        Self { proven, probed: path.proof(), unproven: None, broken }
    }
}

//! Gateways that are lost (G4).

use super::{CarrierSet, PodUid};
use crate::{
    carriers::carrier::Standing,
    liveness::index::{CarrierId, Index},
    vocabulary::monotonic_time::MonotonicTime,
};

impl CarrierSet {
    /// Finds gateways that are cut off from this replica and that instances no longer use: because the gateway is dead,
    /// or because nine tenths of those that it carried have been heard by other ways since.
    pub(super) fn look_for_lost(
        &mut self,
        index: &Index,
        is_silent: impl Fn(&PodUid) -> bool,
        now: MonotonicTime,
    ) {
        let is_cut =
            |id: &CarrierId| matches!(self.carriers[id.at()].standing, Standing::Cut { .. });
        if !self.pods.values().any(is_cut) {
            return;
        }
        // One pass for all of them: there may be many records, and the index is locked.
        let counts = index.count_carried();
        let mut gone = Vec::new();
        for (pod, id) in &self.pods {
            let carrier = &mut self.carriers[id.at()];
            let Standing::Cut { since, carried } = carrier.standing else { continue };
            let remaining = counts.get(id).copied().unwrap_or_default();
            let before = carried.unwrap_or(remaining);
            carrier.standing = Standing::Cut { since, carried: Some(before) };
            if is_silent(pod) || remaining * 10 <= before {
                gone.push(*id);
            }
        }
        for id in gone {
            self.gone(id, now);
        }
    }

    /// A gateway is dead.
    pub(super) fn gone(&mut self, id: CarrierId, now: MonotonicTime) {
        let carrier = &mut self.carriers[id.at()];
        if !matches!(carrier.standing, Standing::Gone { .. }) {
            carrier.interrupted(now);
            carrier.standing = Standing::Gone { since: now };
            if let Some(round) = &mut self.round {
                round.ended(&carrier.incarnation, now);
            }
        }
    }
}

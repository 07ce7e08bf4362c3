//! What keeps silent instances published.

use std::sync::Arc;

use beatkeeper_api::{InstanceState, heartbeat::Health};

use crate::{
    decide::{facts::Facts, verdict::Verdict},
    liveness::index::{Basis, Outcome, Record},
    vocabulary::reason::Reason,
};

/// protection.minReady (L7): no instance is pruned for silence while fewer ready instances than this would be left. Of
/// the instances about to be pruned, those that beat last are kept. A deleted Lease, a deleted Pod and a cordon are
/// not handled here, and so always take effect. An instance that is not published is not handled here either, because
/// protection revives no instance. `ready` is the number of ready instances.
pub(super) fn protect<'a>(
    verdicts: impl Iterator<Item = &'a mut Verdict>,
    min_ready: usize,
    ready: usize,
    about_to_be_pruned: impl Fn(&Verdict) -> bool,
) {
    let missing = min_ready.saturating_sub(ready);
    if missing == 0 {
        return;
    }
    let mut candidates: Vec<&mut Verdict> =
        verdicts.filter(|verdict| about_to_be_pruned(verdict)).collect();
    candidates
        .sort_by(|a, b| b.last_beat.cmp(&a.last_beat).then_with(|| a.instance.cmp(&b.instance)));
    for verdict in candidates.into_iter().take(missing) {
        verdict.message =
            format!("{}; kept, because spec.protection.minReady is {min_ready}", verdict.message);
        verdict.state = InstanceState::Held;
        verdict.reason = Reason::Protected;
        if let Some(lease) = &mut verdict.lease {
            lease.decision.outcome = Outcome::Published(Basis::MinReady);
        }
    }
}

/// Whether an instance counts as ready. While nothing may be added, an instance that is not published does not serve.
pub(super) fn counts_as_ready(facts: &Facts<'_>, verdict: &Verdict) -> bool {
    matches!(verdict.state, InstanceState::Ready | InstanceState::Held)
        && (facts.published.frozen.is_none() || verdict.is_at(facts.published.addresses))
}

/// Whether an instance was ready until now.
pub(super) fn was_ready(record: &Record) -> bool {
    record.expired_at.is_none() && record.content.health == Ok(Health::Passing)
}

/// Whether an instance is about to be pruned for its silence, and was ready until now.
pub(super) fn is_about_to_be_pruned(
    facts: &Facts<'_>,
    verdict: &Verdict,
    was_ready: impl FnOnce(&Arc<str>) -> bool,
) -> bool {
    let lease = verdict.lease_decision().map(|decision| &decision.lease);
    let placed = verdict.placement.as_ref();
    verdict.state == InstanceState::Expired
        && lease.is_some_and(was_ready)
        && placed.is_some_and(|it| it.kubelet_ready && it.is_at(facts.published.addresses))
}

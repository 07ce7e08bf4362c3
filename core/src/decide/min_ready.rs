//! What keeps silent instances published.

use beatkeeper_api::InstanceState;

use crate::{
    decide::verdict::Verdict,
    liveness::index::{Basis, Outcome},
    vocabulary::reason::Reason,
};

/// protection.minReady (L7): no instance is pruned for silence while fewer ready instances than this would be left. Of
/// the instances about to be pruned, those that beat last are kept. A deleted Lease, a deleted Pod and a cordon are
/// not handled here, and so always take effect. An instance that is not published is not handled here either, because
/// protection revives no instance. A ready instance counts only if `serves` is true for it: while nothing may be added,
/// an instance that is not published does not serve.
pub(crate) fn protect(
    verdicts: &mut [Verdict],
    min_ready: usize,
    serves: impl Fn(&Verdict) -> bool,
    about_to_be_pruned: impl Fn(&Verdict) -> bool,
) {
    let ready = |verdict: &&Verdict| {
        matches!(verdict.state, InstanceState::Ready | InstanceState::Held) && serves(verdict)
    };
    let missing = min_ready.saturating_sub(verdicts.iter().filter(ready).count());
    if missing == 0 {
        return;
    }
    let mut candidates: Vec<&mut Verdict> =
        verdicts.iter_mut().filter(|verdict| about_to_be_pruned(verdict)).collect();
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

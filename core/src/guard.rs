//! What keeps silent instances published all the same.

use beatkeeper_api::InstanceState;

use super::verdict::{Reason, Verdict};

/// protection.minReady (L7): silence never prunes below this many ready instances. Of those about to
/// be pruned the ones that beat last are kept. A deleted Lease, a deleted Pod and a cordon never come
/// here, and so always take effect; nor does who is not published, since protection revives nobody.
pub(super) fn protect(
    verdicts: &mut [Verdict],
    min_ready: usize,
    about_to_be_pruned: impl Fn(&Verdict) -> bool,
) {
    let ready =
        |verdict: &&Verdict| matches!(verdict.state, InstanceState::Ready | InstanceState::Held);
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
            lease.settled.expired = false;
            lease.settled.published = true;
            lease.settled.protected = true;
            lease.settled.takes_out = false;
        }
    }
}

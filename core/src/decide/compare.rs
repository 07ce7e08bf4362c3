//! Compares a kept decision with one about all instances. Tests and the simulation do so; production does not.

use crate::{decide::verdict::Verdict, vocabulary::monotonic_time::MonotonicTime};

/// How a kept decision differs from one about all instances at the same moment. `late_at` is when the next beat is late
/// of an instance with a verdict that stands.
pub fn difference(
    kept: &[Verdict],
    late_at: Option<MonotonicTime>,
    all: &[Verdict],
) -> Option<String> {
    if kept.len() != all.len() {
        let names = |verdicts: &[Verdict]| {
            verdicts.iter().map(|verdict| verdict.instance.to_string()).collect::<Vec<_>>()
        };
        return Some(format!("{:?}, and of all {:?}", names(kept), names(all)));
    }
    let mut late = Vec::new();
    for (kept, of_all) in kept.iter().zip(all) {
        let mut kept = kept.clone();
        if let (None, Some(requeue_at)) = (kept.requeue_at, of_all.requeue_at) {
            // It stands. What each beat changes is not kept.
            late.push(requeue_at);
            kept.requeue_at = Some(requeue_at);
            kept.last_beat = of_all.last_beat;
            if let (Some(kept), Some(of_all)) = (&mut kept.lease, &of_all.lease) {
                kept.decision.token = of_all.decision.token.clone();
                kept.decision.carried_at = of_all.decision.carried_at;
            }
        }
        if kept != *of_all {
            return Some(format!("{kept:?}, and of all {of_all:?}"));
        }
    }
    let late = late.into_iter().min();
    (late != late_at).then(|| format!("the next beat is late at {late_at:?}, of all at {late:?}"))
}

//! etcd's room for beats. Each beat is a version of its Lease, and etcd keeps all versions until it is compacted.

use super::{
    facts::{Facts, Unread},
    id::Check,
    registrations,
    verdict::Verdict,
};
use crate::sizes::size;

/// The size that etcd's store may have unless it was told otherwise, in bytes.
const USUAL_QUOTA: u64 = 2 << 30;
/// How many seconds of beats etcd keeps, and how many bytes a beat has, by docs/scaling.md.
const KEPT_SECONDS: f64 = 300.0;
const BEAT_BYTES: f64 = 700.0;

/// The verdict on the room. Without a quota from the user, the usual one is only an assumption, so nothing fails by it.
pub fn verdict(facts: &Facts) -> Verdict {
    let check = Check::Store;
    let bytes = match &facts.stored {
        Err(why) => return Verdict::unknown(check, why),
        Ok(None) => {
            let why = "the API server does not tell the size of its store".to_owned();
            return Verdict::unknown(check, &Unread(why));
        }
        Ok(Some(bytes)) => *bytes,
    };
    let of_beats =
        registrations::rate(facts).map_or(0, |rate| (rate * KEPT_SECONDS * BEAT_BYTES) as u64);
    let quota = facts.quota.unwrap_or(USUAL_QUOTA);
    let needed = bytes.max(of_beats);
    let mut what = match facts.quota {
        Some(_) => format!("it has {}, and may have {}", size(bytes), size(quota)),
        None => format!(
            "it has {}, and may have {} unless etcd was told otherwise",
            size(bytes),
            size(quota)
        ),
    };
    if of_beats > bytes {
        what.push_str(&format!("; all beats of five minutes need {}", size(of_beats)));
    }
    let remedy = "Raise etcd's --quota-backend-bytes, defragment it, or lengthen the interval of the largest registrations";
    match facts.quota {
        _ if needed < quota / 4 * 3 => Verdict::fine(check, what),
        Some(_) if needed >= quota / 10 * 9 => Verdict::failed(check, what, remedy),
        Some(_) => Verdict::warning(check, what, remedy),
        None => Verdict::warning(
            check,
            what,
            "Say what etcd's --quota-backend-bytes is with --etcd-quota; if it is no larger, etcd soon stops all writes",
        ),
    }
}

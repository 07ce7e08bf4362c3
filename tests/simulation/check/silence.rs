//! P1: whether an instance that is taken for dead was silent for long enough.

use std::time::Duration;

use beatkeeper_core::{
    liveness::{
        index::Record,
        proven_time::{Gap, ProvenTime},
    },
    objects::registration::Registration,
    vocabulary::{
        key::Key,
        monotonic_time::MonotonicTime,
        pace::{Pace, Silence},
    },
};

use super::{Accepted, Check, millis, stretches::Stretches};
use crate::{executor::ProcessId, replica::Replica};

/// A list in pages takes this long, in milliseconds.
const LISTED_WITHIN: u64 = 200;

/// An instance that a process takes for dead.
pub(super) struct Death<'a> {
    pub key: &'a Key,
    /// When the live read was sent.
    pub read: u64,
    /// When the beat that the read has shown was accepted.
    pub beat: u64,
    /// When the process saw it.
    seen: u64,
    pub pace: Pace,
    /// Whether the process cannot know that the store went back to this beat.
    is_unaware: bool,
}

/// The last decision that an instance is dead.
pub(super) struct TakenForDead {
    /// The number of its beats that had been accepted until then.
    pub(super) beats: usize,
    /// Whether the decision was made in a dry run.
    pub(super) in_dry_run: bool,
}

impl Check {
    pub(super) fn taken_for_dead(
        &self,
        replica: &Replica,
        registration: &Registration,
        record: &Record,
        decided: u64,
    ) {
        let key = Key::new(&registration.key.namespace, &*record.lease);
        self.tell(|| format!("replica {} takes {key} for dead", replica.place));
        let beats = self.beats.borrow();
        let accepted = beats.get(&key).map(Vec::as_slice).unwrap_or_default();
        let Some(read) = record.silent_at.map(|at| replica.absolute(at)) else {
            return self.fail(|| format!("L2: {key} was not read"));
        };
        let Some(place) = accepted.iter().rposition(|beat| beat.token == record.token) else {
            return self.fail(|| format!("{key} never had the token {:?}", record.token));
        };
        let Accepted { at: beat, by_backup, .. } = accepted[place];
        // An instance that has deregistered since the store went back cannot be distinguished from an instance
        // that lost its Lease because of that.
        let has_left = record.is_unshown()
            && self.workloads().iter().any(|it| it.lease() == key && !it.lives());
        if let Some(next) = accepted.get(place + 1)
            && next.at < read
            && !has_left
        {
            return self.fail(|| {
                format!("P1 (1): {key} beat at {}, unseen by the read of {read}", next.at)
            });
        }
        // L8 and the gaps use the moment at which the beat was seen. The closures of the API server, which use
        // the moment at which the beat was accepted, cover the time before that.
        let seen = replica.absolute(record.seen).max(beat);
        let pace = Pace { ttl: self.ttl(replica, registration, seen), ..registration.pace() };
        // A process that first read all Leases after the store went back cannot know that it went back.
        let is_unaware = by_backup && self.listed(replica.process).is_none_or(|it| it >= beat);
        let death = Death { key: &key, read, beat, seen, pace, is_unaware };
        self.was_silent(&death);
        if beat >= replica.born && !is_unaware {
            self.was_seen_to_be_silent(replica, &death);
        }
        self.path_was_whole(replica, registration, &death, decided, &beats);
        let dead = TakenForDead { beats: accepted.len(), in_dry_run: registration.dry_run };
        self.dead.borrow_mut().insert(key, dead);
        self.deaths.set(self.deaths.get() + 1);
    }

    /// P1 (2) and (5): the beat is a ttl ago, also in the time in which the API server was open.
    fn was_silent(&self, death: &Death) {
        let Death { key, read, beat, pace, is_unaware, .. } = *death;
        // According to the backup, the instance may have been silent for its whole ttl. Then only the least time
        // that is left after a remembered silence is promised (L5).
        let ttl = match is_unaware {
            true => millis(pace.ttl).min(millis(pace.interval) * 11 / 10),
            false => millis(pace.ttl),
        };
        if read < beat + ttl {
            return self.fail(|| {
                format!(
                    "P1 (2): {key} beat at {beat}, ttl {ttl}, taken for dead by a read at {read}"
                )
            });
        }
        if let Some(lost) = self.lost.borrow().get(key).copied()
            && (beat..read).contains(&lost)
            && beat + ttl > lost
            && read < lost + ttl
        {
            return self.fail(|| {
                format!(
                    "P1 (5): {key} lost its Lease at {lost}, ttl {ttl}, taken for dead by a read at {read}"
                )
            });
        }
        let closed = self.closed.borrow();
        let shut: u64 = closed.longer(beat, read, pace).map(|(from, to)| to - from).sum();
        if read - beat - shut < ttl {
            self.fail(|| {
                format!(
                    "P1 (2): {key} beat at {beat}, the API server was closed for {shut} since, ttl {ttl}, \
                     taken for dead by a read at {read}"
                )
            });
        }
    }

    /// P1 (3): the rule of L3, applied to the real gaps.
    fn was_seen_to_be_silent(&self, replica: &Replica, death: &Death) {
        let Death { key, read, beat, seen, pace, .. } = *death;
        let processes = self.processes.borrow();
        let blind = processes.get(&replica.process).map(|known| known.blind.clone());
        let gap = |(from, to)| Gap {
            from: MonotonicTime::from_millis(from),
            to: MonotonicTime::from_millis(to),
        };
        let of = |stretches: &Stretches| {
            ProvenTime::with_gaps(stretches.longer(seen, read, pace).map(gap).collect())
        };
        let gaps = of(&self.closed.borrow()).and(&of(&blind.unwrap_or_default()));
        let since = MonotonicTime::from_millis(seen);
        let deadline = gaps.deadline(Silence { since, before: Duration::ZERO }, pace);
        // A list that shows the probe shows the other Leases as well, and the watch begins only after its last page.
        if MonotonicTime::from_millis(read + LISTED_WITHIN) < deadline {
            self.fail(|| {
                format!("P1 (3): {key} beat at {beat}, taken for dead by a read at {read}, {gaps:?}, {pace:?}")
            });
        }
    }

    /// Returns the longest ttl that the process has known since an instance beat (L8). The process cannot use a
    /// ttl that only an earlier process knew.
    fn ttl(&self, replica: &Replica, registration: &Registration, beat: u64) -> Duration {
        let ttls = self.ttls.borrow();
        let known = ttls.get(&(replica.process, registration.key.clone()));
        let since = known.into_iter().flatten().filter(|(ends, _)| *ends > beat);
        since.map(|(_, ttl)| *ttl).fold(registration.ttl, Duration::max)
    }

    /// Records that the watch has delivered the ttl of a registration to a process.
    pub(super) fn knows_ttl(&self, process: ProcessId, registration: &Registration, now: u64) {
        let mut ttls = self.ttls.borrow_mut();
        let known = ttls.entry((process, registration.key.clone())).or_default();
        if let Some((ends, ttl)) = known.last_mut() {
            if *ttl == registration.ttl {
                return;
            }
            *ends = now;
        }
        known.push((u64::MAX, registration.ttl));
    }
}

//! Which ttl applies to an instance while the spec changes (L8).

use std::{collections::HashMap, time::Duration};

use crate::{
    liveness::index::Record,
    vocabulary::{key::Key, monotonic_time::MonotonicTime, pace::Pace},
};

/// The longest time until a client reads its registration again. A client that starts later than this after an edit
/// knows the edit.
const NEWS_TRAVELS_FOR: Duration = Duration::from_secs(120);
/// The number of former ttls for which an instance must keep the present pace if its Lease says that its client does
/// not know the present ttl.
const DOUBTED_FOR: u32 = 10;
/// The largest number of former ttls that are kept.
const KEPT: usize = 16;

/// The ttls that a registration has had. A longer ttl applies at once. A shorter one applies to an instance once the
/// instance has been seen to follow it. Until then, the last ttl that it knew applies.
///
/// An instance follows in one of these cases:
///
/// * Its Lease says that its client knows the present ttl (leaseDurationSeconds), and its beats come at the present
///   pace.
/// * Its beats have come at the present pace for as long as the former ttl; or for ten times as long, if its Lease
///   says that its client knows another ttl.
/// * It appeared after the edit. Then it follows from its first beat, unless its Lease says that its client read the
///   registration before the edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TtlHistory {
    current: Duration,
    /// Longer ttls of the past, each with the moment at which it ended. The moments rise and the ttls fall.
    longer: Vec<(MonotonicTime, Duration)>,
    /// An instance with its last beat before this moment was past a ttl when that ttl was replaced by a longer one.
    outlived: MonotonicTime,
}

impl TtlHistory {
    /// A history that begins with this ttl.
    pub fn new(ttl: Duration) -> Self {
        Self { current: ttl, longer: Vec::new(), outlived: MonotonicTime::default() }
    }

    /// A history that begins with this ttl. `former` is a longer one from an earlier process, or from an earlier
    /// registration with this name. It may still apply to some instances.
    pub fn after(former: Option<Duration>, ttl: Duration, now: MonotonicTime) -> Self {
        let mut history = Self::new(ttl);
        history.longer.extend(former.filter(|former| *former > ttl).map(|former| (now, former)));
        history
    }

    /// Records the ttl of the spec at `now`. The same ttl again changes nothing.
    pub fn set(&mut self, ttl: Duration, now: MonotonicTime) {
        if ttl < self.current {
            self.longer.push((now, self.current));
        }
        if ttl > self.current {
            self.outlived = self.outlived.max(now - self.current);
        }
        self.current = ttl;
        // A ttl that is not longer than the present one no longer has an effect.
        self.longer.retain(|&(_, past)| past > ttl);
        if self.longer.len() > KEPT
            && let Some((ended, _)) = self.longer.pop()
            && let Some(last) = self.longer.last_mut()
        {
            // The longer one of the two is assumed to have applied for both.
            last.0 = ended;
        }
    }

    /// Whether an earlier leader may have pruned an instance under a shorter ttl than the one that applies to it now.
    /// `seen` is when its last beat was seen. If in doubt, true.
    pub fn may_have_passed(&self, seen: MonotonicTime) -> bool {
        seen < self.outlived
    }

    /// The ttl of the spec. It applies to each instance that follows it.
    pub fn current(&self) -> Duration {
        self.current
    }

    /// The longest ttl that may apply to an instance.
    pub fn longest(&self) -> Duration {
        self.longer.first().map_or(self.current, |(_, ttl)| *ttl)
    }

    /// The ttl that applies to an instance, for this interval of the registration.
    pub fn at(&self, record: &Record, interval: Duration) -> Duration {
        self.not_left_behind(record, interval).fold(self.current, Duration::max)
    }

    /// For how long an instance must keep the present pace until no former ttl applies to it; `None` if none applies.
    pub fn awaits(&self, record: &Record, interval: Duration) -> Option<Duration> {
        let former = self.not_left_behind(record, interval).max()?;
        Some(self.enough(record, former, interval))
    }

    /// For how long an instance must have kept the present pace to follow. If its Lease says that its client knows the
    /// present ttl, two beats at that pace are enough: half an interval, because a beat that reports bad health comes
    /// early. If its Lease says otherwise, there may be another reason why it beats that often.
    fn enough(&self, record: &Record, former: Duration, interval: Duration) -> Duration {
        match record.content.duration {
            Some(_) if self.is_known_to(record) => interval / 2,
            Some(_) => former * DOUBTED_FOR,
            None => former,
        }
    }

    fn not_left_behind(
        &self,
        record: &Record,
        interval: Duration,
    ) -> impl Iterator<Item = Duration> {
        let still_its_own = move |&&(ended, former): &&(MonotonicTime, Duration)| {
            record.seen < ended || !self.follows(record, ended, former, interval)
        };
        self.longer.iter().filter(still_its_own).map(|(_, ttl)| *ttl)
    }

    fn follows(
        &self,
        record: &Record,
        ended: MonotonicTime,
        former: Duration,
        interval: Duration,
    ) -> bool {
        let born = record.rhythm.born();
        let says_otherwise = record.content.duration.is_some() && !self.is_known_to(record);
        if born >= ended + NEWS_TRAVELS_FOR || (born >= ended && !says_otherwise) {
            return true;
        }
        let pace = Pace { ttl: self.current, interval };
        record.rhythm.kept(pace, record.seen) >= self.enough(record, former, interval)
    }

    /// Whether a Lease says that its client knows the present ttl. The client writes the ttl in whole seconds.
    fn is_known_to(&self, record: &Record) -> bool {
        record
            .content
            .duration
            .is_some_and(|duration| duration < self.current + Duration::from_secs(1))
    }
}

/// If a registration is created again within this time after its deletion, it replaces the deleted one.
const REPLACED_WITHIN: Duration = Duration::from_secs(60);

/// The ttls of deleted registrations, in case they are replaced.
#[derive(Debug, Default)]
pub struct Replaced(HashMap<Key, (MonotonicTime, Duration)>);

impl Replaced {
    /// A registration was deleted; this was the longest ttl that applied to its instances.
    pub fn put(&mut self, key: &Key, ttl: Duration, now: MonotonicTime) {
        self.0.retain(|_, (gone, _)| now < *gone + REPLACED_WITHIN);
        self.0.insert(key.clone(), (now, ttl));
    }

    /// A registration exists. Returns the ttl of the deleted one that it replaces, if there is one.
    pub fn take(&mut self, key: &Key, now: MonotonicTime) -> Option<Duration> {
        let (gone, ttl) = self.0.remove(key)?;
        (now < gone + REPLACED_WITHIN).then_some(ttl)
    }
}

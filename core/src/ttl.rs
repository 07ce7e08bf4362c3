//! Which ttl an instance is measured by while the spec changes (L8).

use std::{collections::HashMap, time::Duration};

use super::{
    index::{Key, Record},
    moment::Moment,
    proven::Pace,
};

/// A client reads its registration anew within this long, and an instance that appears later knows it.
const NEWS_TRAVELS_FOR: Duration = Duration::from_secs(120);
/// So many former ttls it must keep the present pace whose Lease says that it does not know it.
const DOUBTED_FOR: u32 = 10;
/// So many ttls of the past are told apart.
const KEPT: usize = 16;

/// The ttls a registration had. A longer one applies at once; a shorter one to each instance once it
/// has been seen to follow: until then it keeps the pace that it was told last.
///
/// An instance follows when its Lease says that its client knows the present ttl (leaseDurationSeconds)
/// and its beats come at the present pace; or when they have come at that pace for as long as the
/// former ttl, or ten times as long where its Lease says that the client knows another. One that appears after the edit follows from its first beat,
/// unless its Lease says that its client read the registration before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TtlHistory {
    current: Duration,
    /// Longer ones of the past with the moment they ended: ends rise, ttls fall.
    longer: Vec<(Moment, Duration)>,
    /// Who was silent since before this had outlived a ttl when it was replaced by a longer one.
    outlived: Moment,
}

impl TtlHistory {
    /// Begins with a ttl.
    pub fn new(ttl: Duration) -> Self {
        Self { current: ttl, longer: Vec::new(), outlived: Moment::default() }
    }

    /// Begins with a ttl where an earlier process, or an earlier registration of the name, had a
    /// longer one that some instance may still keep.
    pub fn after(former: Option<Duration>, ttl: Duration, now: Moment) -> Self {
        let mut history = Self::new(ttl);
        history.longer.extend(former.filter(|former| *former > ttl).map(|former| (now, former)));
        history
    }

    /// Notes the ttl of the spec as of `now`; saying the same again changes nothing.
    pub fn set(&mut self, ttl: Duration, now: Moment) {
        if ttl < self.current {
            self.longer.push((now, self.current));
        }
        if ttl > self.current {
            self.outlived = self.outlived.max(now - self.current);
        }
        self.current = ttl;
        // What is not longer than the present one decides nothing any more.
        self.longer.retain(|&(_, past)| past > ttl);
        if self.longer.len() > KEPT
            && let Some((ended, _)) = self.longer.pop()
            && let Some(last) = self.longer.last_mut()
        {
            // The longer one of both is taken to have lasted for both.
            last.0 = ended;
        }
    }

    /// Whether one that was last seen to beat at `seen` may have been pruned under a shorter ttl than
    /// the one it is measured by now, by whoever led then. When in doubt, yes.
    pub fn may_have_passed(&self, seen: Moment) -> bool {
        seen < self.outlived
    }

    /// The longest ttl that some instance may be measured by.
    pub fn longest(&self) -> Duration {
        self.longer.first().map_or(self.current, |(_, ttl)| *ttl)
    }

    /// The ttl for an instance, while the registration asks for this interval.
    pub fn at(&self, record: &Record, interval: Duration) -> Duration {
        self.not_left_behind(record, interval).fold(self.current, Duration::max)
    }

    /// For how long an instance must keep the present pace until a former ttl is no longer its own; none
    /// when it has none.
    pub fn awaits(&self, record: &Record, interval: Duration) -> Option<Duration> {
        let former = self.not_left_behind(record, interval).max()?;
        Some(self.enough(record, former, interval))
    }

    /// For how long an instance must have kept the present pace to follow. One whose Lease says that its
    /// client knows is believed after two beats at that pace: half an interval, since a beat that tells of
    /// bad health comes early. One whose Lease says otherwise may beat that often for another reason.
    fn enough(&self, record: &Record, former: Duration, interval: Duration) -> Duration {
        match record.claim.duration {
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
        let still_its_own = move |&&(ended, former): &&(Moment, Duration)| {
            record.seen < ended || !self.follows(record, ended, former, interval)
        };
        self.longer.iter().filter(still_its_own).map(|(_, ttl)| *ttl)
    }

    fn follows(
        &self,
        record: &Record,
        ended: Moment,
        former: Duration,
        interval: Duration,
    ) -> bool {
        let born = record.rhythm.born();
        let says_otherwise = record.claim.duration.is_some() && !self.is_known_to(record);
        if born >= ended + NEWS_TRAVELS_FOR || (born >= ended && !says_otherwise) {
            return true;
        }
        let pace = Pace { ttl: self.current, interval };
        record.rhythm.kept(pace, record.seen) >= self.enough(record, former, interval)
    }

    /// Whether a Lease says that its client knows the present ttl, which it writes in whole seconds.
    fn is_known_to(&self, record: &Record) -> bool {
        record
            .claim
            .duration
            .is_some_and(|duration| duration < self.current + Duration::from_secs(1))
    }
}

/// A registration that is made anew within this long after it was deleted has been replaced.
const REPLACED_WITHIN: Duration = Duration::from_secs(60);

/// The ttls of registrations that are gone, in case each is being replaced.
#[derive(Debug, Default)]
pub struct Replaced(HashMap<Key, (Moment, Duration)>);

impl Replaced {
    /// One is gone; its instances were measured by this ttl at most.
    pub fn put(&mut self, key: &Key, ttl: Duration, now: Moment) {
        self.0.retain(|_, (gone, _)| now < *gone + REPLACED_WITHIN);
        self.0.insert(key.clone(), (now, ttl));
    }

    /// One is there: the ttl of the one before it, if it replaces it.
    pub fn take(&mut self, key: &Key, now: Moment) -> Option<Duration> {
        let (gone, ttl) = self.0.remove(key)?;
        (now < gone + REPLACED_WITHIN).then_some(ttl)
    }
}

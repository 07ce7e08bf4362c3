//! The guard against a broken path (L6): when next to nobody beats any more, the way is broken, and
//! not everybody dead.
//!
//! The probe proves the operator's own way to the API server. It cannot see that the workloads'
//! way is cut: a network policy, a webhook that refuses their Leases, expired tokens. What can be
//! seen is that of all the beats that were due hardly any has arrived.

use std::{collections::HashMap, time::Duration};

use super::{
    index::{Index, Key, Presence, Record, Sight},
    moment::Moment,
    proven::{Gap, Pace, Proven, Silence},
};

/// With fewer beats due than this nothing can be told from how many arrived.
const ENOUGH_DUE: usize = 10;

/// Of very many a sample is asked first: the question is put at each deadline, and to ask a million takes a tenth of
/// a second.
const SAMPLE: usize = 2_048;
/// Of fewer all are counted at once.
const WORTH_SAMPLING: usize = 4 * SAMPLE;

/// Where many fall silent at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// In all that is watched.
    Cluster,
    /// In one namespace.
    Namespace(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cluster => f.write_str("the cluster"),
            Self::Namespace(name) => write!(f, "namespace {name}"),
        }
    }
}

/// How many instances had a beat due by the end of a stretch of time, and of how many one arrived in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// Instances with a beat due.
    pub due: usize,
    /// Those of them of whom one arrived.
    pub arrived: usize,
}

impl Flow {
    /// Counts one instance in the last `window`, if its beats are waited for.
    pub fn count(&mut self, record: &Record, interval: Duration, window: Duration, now: Moment) {
        if !is_waited_for(record) {
            return;
        }
        let Silence { since, before } = record.silence();
        let quiet = now.since(since) + before;
        // Of one that was there when this process began no beat has arrived yet.
        let arrived = record.sight == Sight::Changed && quiet < window;
        // One that is owed since before the window is still owed.
        if arrived || quiet >= interval {
            self.due += 1;
            self.arrived += usize::from(arrived);
        }
    }

    /// Whether so few arrived that it cannot be the instances.
    pub fn is_broken(self) -> bool {
        self.due >= ENOUGH_DUE && self.hardly_any_arrived()
    }

    /// Whether a sample with this outcome shows that more than a tenth of all arrived. Where they did not, three
    /// tenths of so many that were drawn at random would arrive once in more than 10^15 samples.
    fn shows_a_whole_way(self) -> bool {
        self.due >= SAMPLE / 8 && self.arrived * 10 >= self.due * 3
    }

    fn hardly_any_arrived(self) -> bool {
        self.arrived * 10 < self.due
    }
}

/// The guard's memory: where, and in windows of which length, the way is broken or was.
#[derive(Debug, Default)]
pub struct Guard {
    places: HashMap<(Place, Duration), Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    /// From when on beats have been missing, while they are.
    broken_from: Option<Moment>,
    /// When it was so before.
    gaps: Proven,
}

/// A way that is broken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Where.
    pub place: Place,
    /// What was due and what arrived.
    pub flow: Flow,
    /// In how long a stretch.
    pub window: Duration,
}

impl Guard {
    /// Asks, for a deadline in a namespace, whether the way is broken there or everywhere. To be asked
    /// again while it is: once beats flow, the stretch in which they did not becomes a gap in proven
    /// time, so that those who were silent get a ttl from then on.
    pub fn ask(
        &mut self,
        namespace: &str,
        pace: Pace,
        index: &Index,
        pace_of: impl Fn(&Key) -> Option<Pace>,
        now: Moment,
    ) -> Option<Broken> {
        let window = pace.slack();
        let count_where = |is_asked: &dyn Fn(&Key) -> bool| {
            let mut flow = Flow::default();
            for (registration, records) in index.registrations() {
                if is_asked(registration)
                    && let Some(Pace { interval, .. }) = pace_of(registration)
                {
                    records.for_each(|record| flow.count(record, interval, window, now));
                }
            }
            flow
        };
        let sampled = || {
            let mut flow = Flow::default();
            for (registration, record) in index.sample(SAMPLE) {
                if let Some(Pace { interval, .. }) = pace_of(registration) {
                    flow.count(record, interval, window, now);
                }
            }
            flow
        };
        let in_cluster = (index.count() >= WORTH_SAMPLING).then(sampled);
        let cluster = in_cluster
            .filter(|flow| flow.shows_a_whole_way())
            .unwrap_or_else(|| count_where(&|_| true));
        let here = count_where(&|registration| registration.namespace == namespace);
        let cluster = self.look(Place::Cluster, cluster, window, now);
        let here = self.look(Place::Namespace(namespace.to_owned()), here, window, now);
        // The wider one says more.
        cluster.or(here)
    }

    fn look(&mut self, place: Place, flow: Flow, window: Duration, now: Moment) -> Option<Broken> {
        let key = (place.clone(), window);
        let was_broken = self.places.get(&key).is_some_and(|watched| watched.broken_from.is_some());
        // It is mended by beats that arrive, and not by fewer that are due because one has left.
        if flow.is_broken() || (was_broken && flow.hardly_any_arrived()) {
            let watched = self.places.entry(key).or_default();
            watched.broken_from.get_or_insert(now - window);
            return Some(Broken { place, flow, window });
        }
        if let Some(watched) = self.places.get_mut(&key)
            && let Some(from) = watched.broken_from.take()
        {
            watched.gaps.note(Gap { from, to: now });
        }
        None
    }

    /// Whether the way was found broken, there or everywhere, and not yet found to be whole again.
    /// Then it is to be asked again even if nobody is late any more, or the stretch in which beats were
    /// missing would last until somebody dies, and give that one another ttl.
    pub fn is_to_be_asked_again(&self, namespace: &str, pace: Pace) -> bool {
        [Place::Cluster, Place::Namespace(namespace.to_owned())].into_iter().any(|place| {
            let watched = self.places.get(&(place, pace.slack()));
            watched.is_some_and(|watched| watched.broken_from.is_some())
        })
    }

    /// Where the way is broken now.
    pub fn broken(&self) -> impl Iterator<Item = &Place> {
        let broken = self.places.iter().filter(|(_, watched)| watched.broken_from.is_some());
        broken.map(|((place, _), _)| place)
    }

    /// What is proven of the past for registrations of a namespace with this pace: `path`, but for
    /// the stretches in which beats did not flow.
    pub fn proven(&self, path: &Proven, namespace: &str, pace: Pace) -> Proven {
        let of = |place| self.places.get(&(place, pace.slack()));
        let places = [of(Place::Cluster), of(Place::Namespace(namespace.to_owned()))];
        let gaps = places.into_iter().flatten().map(|watched| &watched.gaps);
        gaps.fold(path.clone(), |proven, gaps| proven.and(gaps))
    }
}

/// Whether beats of an instance are waited for: it is published, and not only because nobody may be pruned any more (L7);
/// it was seen to beat or has a ttl to beat in (L5); it is not decided to be dead; and the watch would show its beats.
fn is_waited_for(record: &Record) -> bool {
    record.published
        && !record.protected
        && record.presence == Presence::Watched
        && record.sight != Sight::Inherited
        && record.token.renewed.is_some()
        && record.expired_at.is_none()
}

//! The outage guard (L6): if almost no beats arrive, the path counts as broken, because a broken path is more likely
//! than many deaths.
//!
//! The probe proves the operator's own path to the API server. It cannot show that the path of the workloads is
//! broken: by a network policy, a webhook that refuses their Leases, or expired tokens. But the operator can see that
//! almost none of all the beats that were due have arrived.
//!
//! Tenants write the Leases, so no tenant may decide for another. If the beats of a registration or its namespace show
//! a whole path, the others are not counted. Other tenants have little weight. Of the silent instances, only those
//! count that fell silent at about the same time.

pub mod weight;

use std::{collections::HashMap, time::Duration};

use weight::Weight;

use crate::{
    liveness::{
        index::{Index, Presence, Provenance, Record},
        outage_guard::weight::{BeatCount, Sign},
        proven_time::{Gap, ProvenTime},
    },
    vocabulary::{
        key::Key,
        monotonic_time::MonotonicTime,
        pace::{Pace, Silence},
    },
};

/// The largest number of instances that count of another registration in the same namespace.
const OF_A_REGISTRATION: usize = 10;

/// The largest number of instances that count of another namespace. It is too small to hold an instance that is alone
/// in its own namespace.
const OF_A_NAMESPACE: usize = 8;

/// How many instances of a registration in another namespace are looked at. The registration counts for
/// [`OF_A_NAMESPACE`] at most. The guard is asked at a deadline, when there is no time to visit a million records.
const SAMPLED_INSTANCES: usize = 64;

/// Where many instances fall silent at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OutageArea {
    /// In everything that is watched.
    Cluster,
    /// In one namespace.
    Namespace(String),
}

/// The stretch of time that the guard looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    /// Its end.
    now: MonotonicTime,
    /// How long before the end a beat counts as arrived.
    window: Duration,
    /// How long the instance that the guard is asked about has been silent.
    silence: Duration,
}

impl Stretch {
    /// What the beats of one instance say; `None` if they are not waited for or say nothing.
    fn sign(self, record: &Record, interval: Duration) -> Option<Sign> {
        if !is_waited_for(record) {
            return None;
        }
        let quiet = record.silence().until(self.now);
        // An instance in grace, which was there when this process started or the store went back, has not beaten yet.
        if record.provenance == Provenance::Changed && record.grace.is_none() && quiet < self.window
        {
            return Some(Sign::Arrived);
        }
        if quiet < interval {
            // If it has beaten since the instance in question fell silent, it is on time. Otherwise it says nothing.
            return (interval <= self.silence).then_some(Sign::OnTime);
        }
        // A beat that was due before the window and has not arrived is still missing. But if the path broke after the
        // last beat of the instance in question, no instance can have been late long before that. An instance that has
        // not beaten for hours, as its ttl permits, is no sign of a broken path. The silence is doubled because the
        // silence that an earlier process has proven is understated (L5).
        (quiet - interval <= self.silence * 2).then_some(Sign::Missing)
    }
}

/// The registrations for which the path is or was broken.
#[derive(Debug, Clone, Default)]
pub struct OutageGuard {
    registrations: HashMap<Key, Watched>,
}

#[derive(Debug, Clone, Default)]
struct Watched {
    /// What was found; set while the path is broken.
    broken: Option<Hold>,
    /// When the path was broken before.
    gaps: ProvenTime,
}

#[derive(Debug, Clone)]
struct Hold {
    /// Since when beats have been missing.
    from: MonotonicTime,
    place: OutageArea,
    /// Since when the instances were silent when the guard was first asked.
    silent: Silence,
}

/// A path that is broken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenPath {
    /// Where.
    pub place: OutageArea,
    /// The beats that were due and that arrived: counted as instances in a namespace, and as namespaces in the
    /// cluster.
    pub flow: BeatCount,
    /// Whether some instances of other registrations were not counted.
    pub weighed: bool,
    /// The length of the stretch of time.
    pub window: Duration,
}

impl OutageGuard {
    /// Asks whether the path is broken in the namespace or everywhere, for a registration in which the deadline of an
    /// instance has passed. `silence` is that of the instance that fell silent last. Ask again while the path is
    /// broken: once beats arrive, the stretch without beats becomes a gap in proven time. Instances that were silent
    /// then get a ttl from then on.
    pub fn check(
        &mut self,
        registration: &Key,
        pace: Pace,
        silence: Option<Silence>,
        index: &Index,
        pace_of: impl Fn(&Key) -> Option<Pace>,
        now: MonotonicTime,
    ) -> Option<BrokenPath> {
        let hold = self.registrations.get(registration).and_then(|it| it.broken.as_ref());
        let (silent, stretch) = stretch(hold, pace, silence, now)?;
        let window = stretch.window;
        let found = Question { registration, index, pace_of: &pace_of, stretch }
            .look(hold.map(|hold| &hold.place));
        let Some((place, weight)) = found else {
            self.is_whole(registration, now);
            return None;
        };
        let watched = self.registrations.entry(registration.clone()).or_default();
        let from = watched.broken.take().map_or(now - window, |hold| hold.from);
        watched.broken = Some(Hold { from, place: place.clone(), silent });
        Some(BrokenPath { place, flow: weight.flow(), weighed: weight.is_cut(), window })
    }

    /// The same question, answered from the beats of the registration alone. They are known without a visit to each of
    /// its records. Returns whether they show a whole path; if not, [`Self::check`] has to be asked.
    pub fn is_shown_whole(
        &mut self,
        registration: &Key,
        pace: Pace,
        silence: Option<Silence>,
        beats: OwnBeats<'_>,
        now: MonotonicTime,
    ) -> bool {
        let hold = self.registrations.get(registration).and_then(|it| it.broken.as_ref());
        let Some((_, stretch)) = stretch(hold, pace, silence, now) else { return false };
        let mut own = Weight::arrived(beats.arrived);
        let signs = beats.others.iter().filter_map(|record| stretch.sign(record, pace.interval));
        signs.for_each(|sign| own.count(sign));
        let is_whole = own.shows_a_whole_way();
        if is_whole {
            self.is_whole(registration, now);
        }
        is_whole
    }

    /// The path is whole for a registration. If it was broken before, the stretch without beats becomes a gap.
    fn is_whole(&mut self, registration: &Key, now: MonotonicTime) {
        if let Some(watched) = self.registrations.get_mut(registration)
            && let Some(hold) = watched.broken.take()
        {
            watched.gaps.note(Gap { from: hold.from, to: now });
        }
    }

    /// Whether the path was found broken for a registration, and not found whole since. The guard must then be asked
    /// again even if no instance is late any more. Otherwise the stretch in which beats were missing would last until
    /// an instance dies, and would give that instance another ttl.
    pub fn must_check_again(&self, registration: &Key) -> bool {
        self.registrations.get(registration).is_some_and(|watched| watched.broken.is_some())
    }

    /// Where the path was found broken for a registration, and since when beats have been missing. Without asking again.
    pub fn found(&self, registration: &Key) -> Option<(OutageArea, MonotonicTime)> {
        let hold = self.registrations.get(registration)?.broken.as_ref()?;
        Some((hold.place.clone(), hold.from))
    }

    /// When the path was found broken before for a registration.
    pub fn gaps(&self, registration: &Key) -> Option<&ProvenTime> {
        self.registrations.get(registration).map(|watched| &watched.gaps)
    }

    /// The proven time in the past for a registration: `path` without the stretches in which beats did not arrive.
    pub fn proven_time(&self, path: &ProvenTime, registration: &Key) -> ProvenTime {
        match self.registrations.get(registration) {
            Some(watched) => path.and(&watched.gaps),
            None => path.clone(),
        }
    }

    /// Begins a term. A broken path that an earlier term of this process found may have been repaired since, and the
    /// time in between proves nothing. The guard therefore decides again. The published instances must be known by
    /// then ([`Index::note_published`]). Otherwise no beats would be due, and the guard would not protect the first
    /// decisions.
    pub fn begin_term(&mut self) {
        self.registrations.retain(|_, watched| {
            watched.broken = None;
            watched.gaps != ProvenTime::default()
        });
    }

    /// Forgets a registration that is gone.
    pub fn forget(&mut self, registration: &Key) {
        self.registrations.remove(registration);
    }
}

/// What is known of the beats of a registration without a visit to each of its records.
#[derive(Debug, Clone, Copy)]
pub struct OwnBeats<'a> {
    /// How many beats have arrived in the window, of instances that are waited for and are not among the others.
    pub arrived: usize,
    /// The records of the others.
    pub others: &'a [Record],
}

/// The stretch of time to look at, and since when the instance in question is silent. `None` if none is in question.
fn stretch(
    hold: Option<&Hold>,
    pace: Pace,
    silence: Option<Silence>,
    now: MonotonicTime,
) -> Option<(Silence, Stretch)> {
    // An instance that was silent when the path broke is still a sign of it.
    let silent = hold.map(|hold| hold.silent).or(silence)?;
    Some((silent, Stretch { now, window: pace.slack(), silence: silent.until(now) }))
}

/// The inputs of one question to the guard.
struct Question<'a, P> {
    registration: &'a Key,
    index: &'a Index,
    pace_of: &'a P,
    stretch: Stretch,
}

impl<P: Fn(&Key) -> Option<Pace>> Question<'_, P> {
    /// Where the path is broken, and what shows it. `known` is where it was found broken before: there it becomes
    /// whole when beats arrive, and not when fewer are due because an instance has left.
    fn look(&self, known: Option<&OutageArea>) -> Option<(OutageArea, Weight)> {
        let (own, here) = self.here();
        if own.shows_a_whole_way() || here.shows_a_whole_way() {
            return None;
        }
        if here.is_broken() || (is_namespace(known) && here.hardly_any_arrived()) {
            return Some((OutageArea::Namespace(self.registration.namespace.clone()), here));
        }
        if here.is_on_time() {
            return None;
        }
        let (due, votes) = self.everywhere(here);
        let was_broken = known == Some(&OutageArea::Cluster);
        let is_broken = (due.is_enough() || was_broken) && votes.hardly_any_arrived();
        is_broken.then_some((OutageArea::Cluster, votes))
    }

    /// The count of the registration itself, and that of its namespace: its own instances in full, and those of others
    /// up to a bound.
    fn here(&self) -> (Weight, Weight) {
        let (mut own, mut others) = (Weight::default(), Weight::default());
        for (registration, records) in self.index.registrations() {
            if registration == self.registration {
                own = self.count(registration, records);
            } else if registration.namespace == self.registration.namespace {
                others += self.count(registration, records).at_most(OF_A_REGISTRATION);
            }
        }
        (own, own + others)
    }

    /// The count of everything: this namespace in full, and each other namespace up to a bound. The second result
    /// gives each namespace one vote, because it is easier for a tenant to have many instances than many namespaces.
    fn everywhere(&self, here: Weight) -> (Weight, Weight) {
        let mut namespaces: HashMap<&str, Weight> = HashMap::new();
        for (registration, records) in self.index.some_of_each_registration(SAMPLED_INSTANCES) {
            if registration.namespace != self.registration.namespace {
                let weight = self.count(registration, records).at_most(OF_A_NAMESPACE);
                *namespaces.entry(&registration.namespace).or_default() += weight;
            }
        }
        namespaces.into_values().fold((here, here.at_most(1)), |(due, votes), weight| {
            (due + weight.at_most(OF_A_NAMESPACE), votes + weight.at_most(1))
        })
    }

    fn count<'r>(&self, registration: &Key, records: impl Iterator<Item = &'r Record>) -> Weight {
        let mut weight = Weight::default();
        if let Some(Pace { interval, .. }) = (self.pace_of)(registration) {
            let signs = records.filter_map(|record| self.stretch.sign(record, interval));
            signs.for_each(|sign| weight.count(sign));
        }
        weight
    }
}

fn is_namespace(place: Option<&OutageArea>) -> bool {
    matches!(place, Some(OutageArea::Namespace(_)))
}

/// Whether a beat of the instance is waited for. The instance must be published, and not only because minReady
/// protects it (L7). It must have been seen to beat, or have a ttl to beat in (L5). It must not be decided to be dead.
/// And the watch must be able to show its beats.
fn is_waited_for(record: &Record) -> bool {
    record.published
        && !record.protected
        && record.presence == Presence::Watched
        && !record.provenance.awaits_beat()
        && record.token.renewed.is_some()
        && record.expired_at.is_none()
}

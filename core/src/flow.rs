//! The guard against a broken path (L6): when next to nobody beats any more, the way is broken, and
//! not everybody dead.
//!
//! The probe proves the operator's own way to the API server. It cannot see that the workloads'
//! way is cut: a network policy, a webhook that refuses their Leases, expired tokens. What can be
//! seen is that of all the beats that were due hardly any has arrived.
//!
//! Leases are written by tenants, so no tenant may decide the question for another. A registration or namespace that
//! shows a whole way by its own beats is not asked about others. Others weigh little. Of the instances that fell
//! silent only those count that did so at about the same time.

use std::{collections::HashMap, time::Duration};

use super::{
    index::{Index, Key, Presence, Record, Sight},
    moment::Moment,
    proven::{Gap, Pace, Proven, Silence},
    weight::Weight,
};

/// Of another registration so many instances count at most, of its own namespace...
const OF_A_REGISTRATION: usize = 10;
/// ... and of another namespace so many: fewer than it takes to hold an instance that is alone in its own.
const OF_A_NAMESPACE: usize = 8;

/// Of a registration in another namespace so many are looked at: it counts for [`OF_A_NAMESPACE`] at most, and the
/// question is put at a deadline, when the way of a million records is long.
const LOOKED_AT: usize = 64;

/// Where many fall silent at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// In all that is watched.
    Cluster,
    /// In one namespace.
    Namespace(String),
}

/// Of how many instances a beat was due by the end of a stretch of time, and of how many one arrived in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// Instances with a beat due.
    pub due: usize,
    /// Those of them of whom one arrived.
    pub arrived: usize,
}

/// The stretch of time that a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    /// Its end.
    now: Moment,
    /// How long before that beats count as arrived.
    window: Duration,
    /// How long the instance has been silent that the question is put for.
    silence: Duration,
}

impl Stretch {
    /// What the beats of one instance say, if they are waited for.
    fn sign(self, record: &Record, interval: Duration) -> Option<Sign> {
        if !is_waited_for(record) {
            return None;
        }
        let quiet = record.silence().until(self.now);
        // Of one that was there when this process began, or the store went back, no beat has arrived yet.
        if record.sight == Sight::Changed && record.grace.is_none() && quiet < self.window {
            return Some(Sign::Arrived);
        }
        if quiet < interval {
            // It has beaten since the one in question did not, or it says nothing.
            return (interval <= self.silence).then_some(Sign::OnTime);
        }
        // One that is owed since before the window is still owed. But a way that broke after the last beat of the
        // instance in question made no instance late long before that. An instance that has been asleep for hours, as
        // its ttl permits, is no sign of a broken way. Twice as long, because a silence that an earlier process has
        // proven is understated (L5).
        (quiet - interval <= self.silence * 2).then_some(Sign::Missing)
    }
}

/// What the beats of one instance say of the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// One has arrived in the window.
    Arrived,
    /// None was due in it.
    OnTime,
    /// One is due.
    Missing,
}

/// The guard's memory: the registrations for which the way is broken or was.
#[derive(Debug, Default)]
pub struct Guard {
    registrations: HashMap<Key, Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    /// What was found, while it is broken.
    broken: Option<Hold>,
    /// When it was so before.
    gaps: Proven,
}

#[derive(Debug)]
struct Hold {
    /// From when on beats have been missing.
    from: Moment,
    place: Place,
    /// Since when the instances have been silent for which the guard was asked first.
    silent: Silence,
}

/// A way that is broken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Where.
    pub place: Place,
    /// What was due and what arrived: instances in a namespace; in the cluster, namespaces.
    pub flow: Flow,
    /// Whether of other registrations not all were counted.
    pub weighed: bool,
    /// In how long a stretch.
    pub window: Duration,
}

impl Guard {
    /// Asks, for a registration in which an instance's deadline has passed, whether the way is broken in its
    /// namespace or everywhere. `silence` is that of the instance that fell silent last. Ask again while it is broken:
    /// once beats flow, the stretch in which they did not becomes a gap in proven time, so that those who were silent
    /// get a ttl from then on.
    pub fn ask(
        &mut self,
        registration: &Key,
        pace: Pace,
        silence: Option<Silence>,
        index: &Index,
        pace_of: impl Fn(&Key) -> Option<Pace>,
        now: Moment,
    ) -> Option<Broken> {
        let window = pace.slack();
        let hold = self.registrations.get(registration).and_then(|it| it.broken.as_ref());
        // An instance that was silent when the way broke still is a sign of it.
        let silent = hold.map(|hold| hold.silent).or(silence)?;
        let stretch = Stretch { now, window, silence: silent.until(now) };
        let found = Scene { registration, index, pace_of: &pace_of, stretch }
            .look(hold.map(|hold| &hold.place));
        let Some((place, weight)) = found else {
            if let Some(watched) = self.registrations.get_mut(registration)
                && let Some(hold) = watched.broken.take()
            {
                watched.gaps.note(Gap { from: hold.from, to: now });
            }
            return None;
        };
        let watched = self.registrations.entry(registration.clone()).or_default();
        let from = watched.broken.take().map_or(now - window, |hold| hold.from);
        watched.broken = Some(Hold { from, place: place.clone(), silent });
        Some(Broken { place, flow: weight.flow(), weighed: weight.is_cut(), window })
    }

    /// Whether the way was found broken for a registration, and not yet found to be whole again.
    /// Then the guard must be asked again even if no instance is late any more. Otherwise the stretch in which beats
    /// were missing would last until an instance dies, and would give that instance another ttl.
    pub fn is_to_be_asked_again(&self, registration: &Key) -> bool {
        self.registrations.get(registration).is_some_and(|watched| watched.broken.is_some())
    }

    /// What is proven of the past for a registration: `path`, but for the stretches in which beats did not flow.
    pub fn proven(&self, path: &Proven, registration: &Key) -> Proven {
        match self.registrations.get(registration) {
            Some(watched) => path.and(&watched.gaps),
            None => path.clone(),
        }
    }

    /// A term begins. What an earlier one of this process has found broken may have been mended long ago, and the stretch in
    /// between is no proof: it is asked anew. Who is published must be known by then ([`Index::note_published`]).
    /// Otherwise no beats would be due, and the first decisions would not be guarded.
    pub fn begin_term(&mut self) {
        self.registrations.retain(|_, watched| {
            watched.broken = None;
            watched.gaps != Proven::default()
        });
    }

    /// Forgets a registration that is gone.
    pub fn forget(&mut self, registration: &Key) {
        self.registrations.remove(registration);
    }
}

/// All that one question depends on.
struct Scene<'a, P> {
    registration: &'a Key,
    index: &'a Index,
    pace_of: &'a P,
    stretch: Stretch,
}

impl<P: Fn(&Key) -> Option<Pace>> Scene<'_, P> {
    /// Where the way is broken, and what shows it. `known` is where it was found so before: it is mended by beats that
    /// arrive, and not by fewer that are due because one has left.
    fn look(&self, known: Option<&Place>) -> Option<(Place, Weight)> {
        let (own, here) = self.here();
        if own.shows_a_whole_way() || here.shows_a_whole_way() {
            return None;
        }
        if here.is_broken() || (is_namespace(known) && here.hardly_any_arrived()) {
            return Some((Place::Namespace(self.registration.namespace.clone()), here));
        }
        if here.is_on_time() {
            return None;
        }
        let (due, votes) = self.everywhere(here);
        let was_broken = known == Some(&Place::Cluster);
        let is_broken = (due.is_enough() || was_broken) && votes.hardly_any_arrived();
        is_broken.then_some((Place::Cluster, votes))
    }

    /// Of the registration itself, and of its namespace: its own count in full, others up to a bound.
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

    /// Of all there is: what is here in full and each other namespace up to a bound; and the same with one vote for
    /// each namespace, since a tenant has many instances more easily than many namespaces.
    fn everywhere(&self, here: Weight) -> (Weight, Weight) {
        let mut namespaces: HashMap<&str, Weight> = HashMap::new();
        for (registration, records) in self.index.some_of_each_registration(LOOKED_AT) {
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

fn is_namespace(place: Option<&Place>) -> bool {
    matches!(place, Some(Place::Namespace(_)))
}

/// Whether beats of an instance are waited for: it is published, and not only because nobody may be pruned any more (L7);
/// it was seen to beat or has a ttl to beat in (L5); it is not decided to be dead; and the watch would show its beats.
fn is_waited_for(record: &Record) -> bool {
    record.published
        && !record.protected
        && record.presence == Presence::Watched
        && !record.sight.awaits_beat()
        && record.token.renewed.is_some()
        && record.expired_at.is_none()
}

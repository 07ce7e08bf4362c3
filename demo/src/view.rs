//! The observations: which instance beat and when, which addresses were published in which object and since when,
//! and whether an address was missing that should not have been.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::object::{Kind, Object, Place, Token};

/// The observations of one instance's Lease.
#[derive(Clone, Debug)]
pub struct Beats {
    token: Token,
    /// When the Lease was first seen, or first seen again after its deletion.
    pub first: Instant,
    /// When the token was last seen to change.
    pub last: Instant,
    /// Whether a user has cordoned the instance.
    pub cordoned: bool,
    /// When the cordon was last set or lifted.
    pub cordon_changed: Option<Instant>,
    /// When the deletion of the Lease was seen.
    pub deleted: Option<Instant>,
}

/// Whether an address is listed in a place, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Whether the address is listed as ready.
    pub listed: bool,
    /// When this was first seen.
    pub since: Instant,
}

/// All observations so far.
#[derive(Clone, Debug, Default)]
pub struct View {
    leases: BTreeMap<String, Beats>,
    objects: BTreeMap<(Place, String), BTreeSet<IpAddr>>,
    presence: BTreeMap<(Place, IpAddr), Presence>,
    guarded: BTreeSet<IpAddr>,
    missed: Option<String>,
    states: BTreeMap<Place, u32>,
}

impl View {
    /// Returns the observed beats of an instance, or `None` before the first.
    pub fn beats(&self, instance: &str) -> Option<&Beats> {
        self.leases.get(instance)
    }

    /// Returns when an address was first seen to be listed (or not listed) in both places. Returns `None` while one
    /// of the two places differs.
    pub fn since(&self, address: IpAddr, listed: bool) -> Option<Both> {
        let at = |place| {
            self.presence.get(&(place, address)).filter(|it| it.listed == listed).map(|it| it.since)
        };
        Some(Both { slices: at(Place::Slices)?, endpoints: at(Place::Endpoints)? })
    }

    /// Returns which guarded address was missing and where, if any.
    pub fn missed(&self) -> Option<&str> {
        self.missed.as_deref()
    }

    /// Returns how many states of a place were seen.
    pub fn states(&self, place: Place) -> u32 {
        self.states.get(&place).copied().unwrap_or(0)
    }

    /// Guards an address from now on: it must not be missing.
    pub fn guard(&mut self, address: IpAddr) {
        self.guarded.insert(address);
        for place in Place::ALL {
            self.check(place);
        }
    }

    /// Stops guarding an address.
    pub fn release(&mut self, address: IpAddr) {
        self.guarded.remove(&address);
    }

    /// Handles an object that appeared or changed.
    pub fn apply(&mut self, object: Object, now: Instant) {
        match object {
            Object::Lease { instance, token, cordoned } => {
                self.beat(instance, token, cordoned, now)
            }
            Object::Published { place, name, ready } => {
                self.objects.insert((place, name), ready);
                self.settle(place, now);
            }
        }
    }

    /// Handles an object that was deleted.
    pub fn delete(&mut self, object: &Object, now: Instant) {
        match object {
            Object::Lease { instance, .. } => {
                if let Some(beats) = self.leases.get_mut(instance) {
                    beats.deleted = Some(now);
                }
            }
            Object::Published { place, name, .. } => {
                self.objects.remove(&(*place, name.clone()));
                self.settle(*place, now);
            }
        }
    }

    /// Handles a list: an object that is not in it is deleted. The whole list counts as one state.
    pub fn replace(&mut self, kind: Kind, listed: Vec<Object>, now: Instant) {
        let place = match kind {
            Kind::Lease => {
                let names: BTreeSet<String> = listed.iter().map(Object::name).collect();
                for (instance, beats) in &mut self.leases {
                    if !names.contains(instance) && beats.deleted.is_none() {
                        beats.deleted = Some(now);
                    }
                }
                for object in listed {
                    self.apply(object, now);
                }
                return;
            }
            Kind::Slice => Place::Slices,
            Kind::Endpoints => Place::Endpoints,
        };
        self.objects.retain(|(of, _), _| *of != place);
        for object in listed {
            if let Object::Published { place, name, ready } = object {
                self.objects.insert((place, name), ready);
            }
        }
        self.settle(place, now);
    }

    fn beat(&mut self, instance: String, token: Token, cordoned: bool, now: Instant) {
        let Some(beats) = self.leases.get_mut(&instance) else {
            let beats = Beats {
                token,
                first: now,
                last: now,
                cordoned,
                cordon_changed: None,
                deleted: None,
            };
            self.leases.insert(instance, beats);
            return;
        };
        if beats.deleted.take().is_some() {
            beats.first = now;
        }
        if beats.token != token {
            beats.token = token;
            beats.last = now;
        }
        if beats.cordoned != cordoned {
            beats.cordoned = cordoned;
            beats.cordon_changed = Some(now);
        }
    }

    /// Handles a new state of a place: records which addresses came and went, and whether a guarded one is missing.
    fn settle(&mut self, place: Place, now: Instant) {
        *self.states.entry(place).or_default() += 1;
        let listed = self.listed(place);
        for address in &listed {
            let presence = self.presence.entry((place, *address));
            let presence = presence.or_insert(Presence { listed: false, since: now });
            if !presence.listed {
                *presence = Presence { listed: true, since: now };
            }
        }
        for ((of, address), presence) in &mut self.presence {
            if *of == place && presence.listed && !listed.contains(address) {
                *presence = Presence { listed: false, since: now };
            }
        }
        self.check(place);
    }

    fn check(&mut self, place: Place) {
        let listed = self.listed(place);
        if let Some(address) = self.guarded.iter().find(|address| !listed.contains(address)) {
            self.missed.get_or_insert_with(|| {
                format!(
                    "a survivor blinked: {address} beats, and was missing from {}",
                    place.name()
                )
            });
        }
    }

    fn listed(&self, place: Place) -> BTreeSet<IpAddr> {
        let of_place = self.objects.iter().filter(|((of, _), _)| *of == place);
        of_place.flat_map(|(_, ready)| ready).copied().collect()
    }
}

/// A moment in each place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Both {
    /// In the EndpointSlices.
    pub slices: Instant,
    /// In the Endpoints.
    pub endpoints: Instant,
}

impl Both {
    /// Returns the later moment: from then on, the change is visible to every client.
    pub fn last(self) -> Instant {
        self.slices.max(self.endpoints)
    }
}

/// Returns the milliseconds from `from` to `to`, negative if `to` came first.
pub fn millis(from: Instant, to: Instant) -> f64 {
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    if to >= from { ms(to - from) } else { -ms(from - to) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn published(place: Place, name: &str, ready: &[IpAddr]) -> Object {
        let ready = ready.iter().copied().collect();
        Object::Published { place, name: name.to_owned(), ready }
    }

    #[test]
    fn an_address_that_moves_between_slices_is_missed_only_if_it_is_removed_first() {
        let now = Instant::now();
        let mut view = View::default();
        view.apply(published(Place::Endpoints, "greeter", &[A]), now);
        view.apply(published(Place::Slices, "one", &[A]), now);
        view.guard(A);
        view.apply(published(Place::Slices, "two", &[A]), now);
        view.apply(published(Place::Slices, "one", &[]), now);
        assert_eq!(view.missed(), None);
        view.apply(published(Place::Slices, "two", &[]), now);
        view.apply(published(Place::Slices, "one", &[A]), now);
        let missed = view.missed().unwrap();
        assert!(
            missed.contains("192.0.2.1 beats, and was missing from the EndpointSlices"),
            "{missed}"
        );
    }

    #[test]
    fn a_released_address_may_leave_and_the_moment_is_noted_for_each_place() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut view = View::default();
        view.apply(published(Place::Endpoints, "greeter", &[A, B]), at(1));
        assert_eq!(view.since(A, true), None);
        view.apply(published(Place::Slices, "one", &[A, B]), at(2));
        assert_eq!(view.since(A, true), Some(Both { slices: at(2), endpoints: at(1) }));
        view.guard(A);
        view.guard(B);
        view.release(A);
        view.apply(published(Place::Slices, "one", &[B]), at(3));
        assert_eq!(view.since(A, false), None);
        view.replace(Kind::Endpoints, vec![published(Place::Endpoints, "greeter", &[B])], at(4));
        assert_eq!(view.since(A, false), Some(Both { slices: at(3), endpoints: at(4) }));
        assert_eq!(view.missed(), None);
    }

    #[test]
    fn only_a_changed_token_is_a_beat() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let lease = |renewed: &str, cordoned| Object::Lease {
            instance: "vm-1".to_owned(),
            token: ("uid".to_owned(), renewed.to_owned()),
            cordoned,
        };
        let mut view = View::default();
        view.apply(lease("1", false), at(1));
        view.apply(lease("1", true), at(2));
        view.apply(lease("2", true), at(3));
        let beats = view.beats("vm-1").unwrap();
        assert_eq!((beats.first, beats.last, beats.cordon_changed), (at(1), at(3), Some(at(2))));
        view.replace(Kind::Lease, vec![], at(4));
        assert_eq!(view.beats("vm-1").unwrap().deleted, Some(at(4)));
    }
}

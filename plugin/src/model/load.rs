//! How much a registration beats, and which of its instances is pruned next unless it beats.

use std::time::Duration;

use beatkeeper_api::InstanceState;
use beatkeeper_core::vocabulary::key::Key;
use jiff::{SignedDuration, Timestamp};

use super::{instance::Instance, registration::RegistrationView};

/// What `top` shows of a registration.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// Namespace and name.
    pub key: Key,
    /// The known instances, in all states.
    pub instances: usize,
    /// Those that are ready.
    pub ready: usize,
    /// Those that are published, and late by more than half of their slack.
    pub overdue: usize,
    /// Beats a second: how many instances beat in time, divided by the interval. An instance does if it is not overdue,
    /// whether it is published or not. One that beats through a gateway does if it is published. One that beats more often
    /// than it should counts as if it did not.
    pub beats: f64,
    /// The next deadline.
    pub next: Option<Deadline>,
}

/// When an instance is pruned unless it beats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadline {
    /// How long until then.
    pub after: Duration,
    /// The instance.
    pub instance: String,
}

impl Load {
    /// The load of a registration.
    pub fn of(view: &RegistrationView, now: Timestamp) -> Self {
        let counts = view.counts();
        let is_late = |it: &Instance| match it.silent(now) {
            Some(silent) => silent >= view.overdue_after(),
            None => !it.is_carried(now) || !it.state.is_published(),
        };
        let beating = view.instances.iter().filter(|it| !is_late(it)).count();
        let overdue = |it: &&Instance| it.state.is_published() && it.beat.is_some() && is_late(it);
        Self {
            key: view.key.clone(),
            instances: counts.total(),
            ready: counts.of_state(InstanceState::Ready),
            overdue: view.instances.iter().filter(overdue).count(),
            beats: whole(beating) / view.interval.as_secs_f64().max(f64::MIN_POSITIVE),
            next: next(view, now),
        }
    }

    /// All of several registrations together. The nearest of their deadlines is the next one.
    pub fn sum(loads: &[Self]) -> Self {
        let all = |number: fn(&Self) -> usize| loads.iter().map(number).sum();
        let next = loads.iter().filter_map(|load| Some((load, load.next.as_ref()?)));
        let next = next.min_by_key(|(_, next)| next.after).map(|(load, next)| Deadline {
            after: next.after,
            instance: format!("{}/{}", load.key.name, next.instance),
        });
        Self {
            key: Key::new("", ""),
            instances: all(|load| load.instances),
            ready: all(|load| load.ready),
            overdue: all(|load| load.overdue),
            beats: loads.iter().map(|load| load.beats).sum(),
            next,
        }
    }
}

/// The next deadline of a published instance. One that has passed is none: the instance is held, or is pruned now.
fn next(view: &RegistrationView, now: Timestamp) -> Option<Deadline> {
    let published = view.instances.iter().filter(|it| it.state.is_published());
    let ttl = SignedDuration::try_from(view.longest_ttl()).ok()?;
    let deadlines = published.filter_map(|instance| {
        let deadline = instance.beat?.at.checked_add(ttl).ok()?;
        let after = Duration::try_from(deadline.duration_since(now)).ok()?;
        Some(Deadline { after, instance: instance.name.clone() })
    });
    deadlines.min_by(|a, b| (a.after, &a.instance).cmp(&(b.after, &b.instance)))
}

/// A count as a number with fractions. Counts of instances are far below what it can hold.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn whole(count: usize) -> f64 {
    count as f64
}

/// By what registrations are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SortBy {
    /// Namespace and name.
    #[default]
    Name,
    /// Beats a second, the most first.
    Beats,
    /// Instances, the most first.
    Instances,
    /// Overdue instances, the most first.
    Overdue,
    /// The next deadline, the nearest first.
    Deadline,
}

impl SortBy {
    /// The next one, round and round.
    pub fn next(self) -> Self {
        match self {
            Self::Name => Self::Beats,
            Self::Beats => Self::Instances,
            Self::Instances => Self::Overdue,
            Self::Overdue => Self::Deadline,
            Self::Deadline => Self::Name,
        }
    }
}

/// Sorts registrations; those that are equal by their names.
pub fn sort(loads: &mut [Load], by: SortBy) {
    use std::cmp::Reverse;
    loads.sort_by(|a, b| a.key.cmp(&b.key));
    match by {
        SortBy::Name => {}
        SortBy::Beats => loads.sort_by(|a, b| b.beats.total_cmp(&a.beats)),
        SortBy::Instances => loads.sort_by_key(|load| Reverse(load.instances)),
        SortBy::Overdue => loads.sort_by_key(|load| Reverse(load.overdue)),
        SortBy::Deadline => {
            loads.sort_by_key(|load| load.next.as_ref().map_or(Duration::MAX, |next| next.after));
        }
    }
}

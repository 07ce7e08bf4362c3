//! What may happen to a registration between its decisions.

use beatkeeper_api::heartbeat::Health;
use proptest::{collection::vec, prelude::*};

use crate::liveness::index::Delivery;

/// The first half are outside instances, the others run in Pods.
pub(super) const INSTANCES: usize = 12;
/// The declared one among the outside instances.
pub(super) const DECLARED: usize = 1;

/// What happens to instance number `usize`, or to all.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Wait(u64),
    Beat(usize),
    /// A gateway carries a beat, in time or long after.
    Carry(usize, Delivery),
    /// The stream of that gateway breaks, or is there again.
    Cut(bool),
    /// The Lease has no renewTime any more.
    Forget(usize),
    /// All beat but these.
    AllBeat(Vec<usize>),
    Health(usize, Health),
    Cordon(usize, bool),
    /// The watch shows the Lease without its label, or does not show it any more.
    Unlabel(usize),
    Vanish(usize),
    /// A live read finds no Lease.
    Absent(usize),
    Deleting(usize),
    /// The Lease moves to another registration.
    Move(usize),
    Pod(usize, PodIs),
    /// The slices become what was decided.
    Publish,
    /// Another client changes a slice.
    Toggle(usize),
    /// The suspects are read live.
    Read,
    Ttl(u64),
    MinReady(usize),
    Gap(u64),
    Rollback,
    Relist(Vec<usize>),
    Term,
    /// Another decision, and the number of an instance that beats while it is being made.
    Decide(Option<usize>),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum PodIs {
    Ready,
    NotReady,
    Deleting,
    Replaced,
    Gone,
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let who = || 0..INSTANCES;
    let health = prop_oneof![Just(Health::Passing), Just(Health::Failing), Just(Health::Draining)];
    let pod = prop_oneof![
        3 => Just(PodIs::Ready),
        1 => Just(PodIs::NotReady),
        1 => Just(PodIs::Deleting),
        1 => Just(PodIs::Replaced),
        1 => Just(PodIs::Gone),
    ];
    prop_oneof![
        6 => (0..15_000_u64).prop_map(Event::Wait),
        4 => who().prop_map(Event::Beat),
        3 => who().prop_map(|who| Event::Carry(who, Delivery::Fresh)),
        1 => who().prop_map(|who| Event::Carry(who, Delivery::Late)),
        1 => any::<bool>().prop_map(Event::Cut),
        1 => who().prop_map(Event::Forget),
        8 => vec(who(), 0..4).prop_map(Event::AllBeat),
        1 => (who(), health).prop_map(|(who, health)| Event::Health(who, health)),
        1 => (who(), any::<bool>()).prop_map(|(who, is)| Event::Cordon(who, is)),
        1 => who().prop_map(Event::Unlabel),
        1 => who().prop_map(Event::Vanish),
        1 => who().prop_map(Event::Absent),
        1 => who().prop_map(Event::Deleting),
        1 => who().prop_map(Event::Move),
        2 => (INSTANCES / 2..INSTANCES, pod).prop_map(|(who, is)| Event::Pod(who, is)),
        6 => Just(Event::Publish),
        1 => who().prop_map(Event::Toggle),
        4 => Just(Event::Read),
        1 => prop_oneof![Just(20_u64), Just(30), Just(40)].prop_map(Event::Ttl),
        1 => (0..INSTANCES).prop_map(Event::MinReady),
        1 => (0..20_000_u64).prop_map(Event::Gap),
        1 => Just(Event::Rollback),
        1 => vec(who(), 0..3).prop_map(Event::Relist),
        1 => Just(Event::Term),
        12 => prop_oneof![5 => Just(None), 1 => who().prop_map(Some)].prop_map(Event::Decide),
    ]
}

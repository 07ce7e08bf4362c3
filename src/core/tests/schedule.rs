//! What may happen in the simulation.

use proptest::prelude::*;

use super::simulation::INSTANCES;

#[derive(Debug, Clone)]
pub(super) enum Op {
    /// Time passes, and who is due beats.
    Advance(u64),
    /// Time passes up to the very moment at which the last decision wanted to look again.
    ToWake,
    /// The instance falls silent; its Lease stays.
    Kill(usize),
    /// The Lease is deleted, or made anew when there is none.
    Delete(usize),
    Recreate(usize),
    /// The Lease loses its label, or has it back.
    Strip(usize),
    Restore(usize),
    /// An event of the watch arrives, arrives but will come again, or never arrives.
    Deliver(usize),
    Repeat(usize),
    Lose(usize),
    Relist,
    /// A live read is sent, a sent one is answered, or fails.
    Send(usize),
    Answer(usize),
    Fail(usize),
    /// A decision; with an event that slips in before it is noted.
    Decide(Option<usize>),
    /// Another controller takes over cold.
    Restart,
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let who = || 0..INSTANCES;
    let event = || 0..8usize;
    prop_oneof![
        6 => (1..12_000u64).prop_map(Op::Advance),
        6 => Just(Op::ToWake),
        1 => who().prop_map(Op::Kill),
        1 => who().prop_map(Op::Delete),
        2 => who().prop_map(Op::Recreate),
        1 => who().prop_map(Op::Strip),
        1 => who().prop_map(Op::Restore),
        8 => event().prop_map(Op::Deliver),
        2 => event().prop_map(Op::Repeat),
        2 => event().prop_map(Op::Lose),
        1 => Just(Op::Relist),
        5 => who().prop_map(Op::Send),
        5 => event().prop_map(Op::Answer),
        1 => who().prop_map(Op::Fail),
        8 => proptest::option::of(event()).prop_map(Op::Decide),
        1 => Just(Op::Restart),
    ]
}

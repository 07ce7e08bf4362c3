//! The rules of the design. Each rule can be left out, to show that the checks notice it.

/// The rule that is left out of the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Without {
    /// Leaves out nothing: the operator as it is.
    #[default]
    Nothing,
    /// L1: the silence of an instance is computed from renewTime with the wall clock.
    SeenMoments,
    /// L2: no Lease is read live; an instance that is silent in the cache counts as silent.
    LiveReads,
    /// L3: every probe counts as seen, and no gap is recognised.
    Probes,
    /// L4: an object that the watch reports as deleted counts as gone, without a live read.
    DoubtOfDeletions,
    /// L5: published instances get no ttl after a cold start.
    Grace,
    /// L5: a process remembers nothing of an earlier process.
    Memory,
    /// L6: the outage guard is not asked.
    Guard,
    /// L7: minReady is zero.
    Protection,
    /// L8: a shorter ttl applies at once.
    TtlHistory,
    /// The controller does not notice that the store went back to an earlier state.
    Rollbacks,
    /// L4: an instance with a missing Lease is read only when a decision asks for it, after the foreseen
    /// suspects.
    TheMissing,
}

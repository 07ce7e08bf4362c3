//! The rules of the design, each of which can be left out, to see that the checks notice.

/// What is left out of the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Without {
    /// Nothing: the operator as it is.
    #[default]
    Nothing,
    /// L1: silence is reckoned from renewTime by the wall clock.
    SeenMoments,
    /// L2: nothing is read live; silence is believed as it is.
    LiveReads,
    /// L3: probes are taken for always back, and no gap for one.
    Probes,
    /// L4: what the watch calls deleted is gone, without a read.
    DoubtOfDeletions,
    /// L5: what is published at a cold start gets no ttl.
    Grace,
    /// L5: nothing is remembered beyond a process.
    Memory,
    /// L6: the guard is not asked.
    Guard,
    /// L7: minReady is zero.
    Protection,
    /// L8: a shorter ttl applies at once.
    TtlHistory,
    /// That the store went back to an earlier state is not noticed.
    Rollbacks,
    /// L4: whose Lease has gone is read only when a decision asks for it, after those who were foreseen.
    TheMissing,
}

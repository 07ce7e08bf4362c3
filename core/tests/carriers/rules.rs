//! The rules, each of which can be left out to show that the checks notice it. What a rule sees is changed on its way to
//! the state machines; these have no switches.

/// The rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Without {
    /// Leaves out nothing.
    #[default]
    Nothing,
    /// G1: an instance is answered before the leader holds its beat.
    Acknowledgement,
    /// G2: batches pass for fresh, however long they were under way.
    Echo,
    /// G2: a gateway that was started again takes its former epoch.
    Epochs,
    /// G3: a question is answered although no beat passes.
    ProvenPath,
    /// G5: no list of carriers in the election's Lease.
    List,
    /// G5: a loss counts as a gap, with its tolerance.
    Loss,
    /// G10: no read of the election's Lease before a prune.
    ElectionRead,
    /// G11: what gateways know of the silence before a restart does not count.
    Memory,
    /// G12: beats are acknowledged while a replica knows no carriers.
    OldVersions,
}

impl Without {
    /// All that can be left out. No schedule has yet shown the need for `ElectionRead`.
    pub const ALL: [Self; 9] = [
        Self::Acknowledgement,
        Self::Echo,
        Self::Epochs,
        Self::ProvenPath,
        Self::List,
        Self::Loss,
        Self::ElectionRead,
        Self::Memory,
        Self::OldVersions,
    ];
}

//! What the silence of a carried instance says (G3, G4, G5, G10).

use crate::vocabulary::monotonic_time::MonotonicTime;

/// What is known of the silence of an instance whose beats gateways carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Its deadline has not come.
    Waits {
        /// The deadline.
        until: MonotonicTime,
    },
    /// Its deadline has passed, and nothing may be concluded from that.
    Held(Held),
    /// Its deadline has passed. Before it is pruned, gateways have to answer a question that reaches the deadline.
    NeedsProof {
        /// The deadline.
        deadline: MonotonicTime,
    },
    /// Its deadline has passed. Before it is pruned, a read of the election's Lease that was sent after the deadline
    /// has to show that this replica still leads (G10).
    NeedsElectionRead {
        /// The deadline.
        deadline: MonotonicTime,
    },
    /// It was silent up to its deadline.
    Silent {
        /// The deadline.
        deadline: MonotonicTime,
    },
}

/// Why an instance is held whose deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Held {
    /// The stream of the gateway that carried it last is broken, and the gateway lives (G4).
    CarrierIsCutOff,
    /// No gateway carries beats to this replica.
    NoCarrier,
    /// A term has begun, and a gateway that may have accepted beats has not answered (G5).
    RoundIsOpen,
}

//! What a replica of the operator and a gateway say to each other, and the names that they use.
//!
//! A stream keeps the order of what is sent on it. When it breaks, what is under way is lost, and the replica dials
//! again. The first frame in each direction is a `Hello`.

use std::{sync::Arc, time::Duration};

use crate::{
    carriers::rights::{Identity, Refusal},
    vocabulary::{key::Key, monotonic_time::MonotonicTime, pace::Pace},
};

/// One process of a gateway. Another process in the same Pod has another epoch (G2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation {
    /// The uid of its Pod.
    pub pod: Arc<str>,
    /// A number that the process drew at random when it started.
    pub epoch: u64,
}

/// The name of a replica of the operator, as it is written into the election's Lease.
pub type ReplicaName = Arc<str>;

/// The number of a batch. A gateway counts its batches from 1; 0 stands for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The number of the batch that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The number that a gateway gives to an instance with an identity. It is not used again in the same epoch (G6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u32);

/// The number of a term: `spec.leaseTransitions` of the election's Lease. It rises whenever the leader changes, and
/// whenever a replica claims the Lease again after its claim has lapsed ([`crate::replica::leader`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Term(pub u64);

/// A moment by the clock of the replica that sent it, in microseconds. A gateway only sends it back (G2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// The present moment of a replica.
    pub fn at(now: MonotonicTime) -> Self {
        let micros = now.since(MonotonicTime::default()).as_micros();
        Self(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// How long ago it was, by the clock of the same replica.
    pub fn age(self, now: MonotonicTime) -> Duration {
        now.since(MonotonicTime::from_start(Duration::from_micros(self.0)))
    }
}

/// The number of a question about the path of the beats (G3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question(pub u64);

/// What a replica sends to a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Down {
    /// The first frame: the last batch that the replica has taken in, with the epoch that it belongs to.
    Hello {
        /// `None` if the replica knows no process of this Pod.
        have: Option<(u64, Sequence)>,
    },
    /// The present moment of the replica.
    Tick(Tick),
    /// The replica leads in this term.
    Leads(Term),
    /// Asks whether beats arrive. The answer proves that they did until the question came.
    Ask {
        /// The number that the answer repeats.
        question: Question,
        /// The term of a leader; `None` from a replica that does not lead.
        term: Option<Term>,
    },
    /// The leader of this term holds the beats of this batch (G1).
    Acknowledge {
        /// The batch.
        batch: Sequence,
        /// The term.
        term: Term,
        /// The instances of the batch with beats that the leader could not take in. It judges them.
        not_held: Vec<InstanceId>,
    },
    /// What the leader says about an instance.
    Verdict {
        /// The instance.
        id: InstanceId,
        /// Whether it may renew.
        verdict: Verdict,
        /// The term of the leader.
        term: Term,
    },
}

/// Whether an instance may renew through a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may, at this pace.
    Allowed(Pace),
    /// It may not.
    Refused(Refusal),
    /// No such Lease exists: a live read has answered 404.
    Unknown,
}

/// What a gateway sends to a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Up {
    /// The first frame.
    Hello {
        /// Who speaks.
        incarnation: Incarnation,
        /// The highest term that the gateway knows.
        term: Option<Term>,
    },
    /// From now on, `id` stands for this instance. It precedes each other mention of the id on a stream, and comes once
    /// more when the leader has allowed it to renew.
    Introduce {
        /// The number.
        id: InstanceId,
        /// The namespace and the name of its Lease.
        lease: Key,
        /// Who beats for it.
        identity: Identity,
        /// Whether a leader has allowed it to renew.
        allowed: bool,
    },
    /// Follows `Hello`: every instance that has beaten since the batch that the replica named.
    Since {
        /// The last batch that it covers.
        up_to: Sequence,
        /// The instances.
        ids: Vec<InstanceId>,
    },
    /// The instances that have beaten since the last batch.
    Batch {
        /// One more than that of the batch before.
        sequence: Sequence,
        /// The latest tick of the replica.
        echo: Tick,
        /// A question that this batch answers: all beats that could be read when it came are in this batch or in
        /// earlier ones.
        answers: Option<Question>,
        /// The instances.
        ids: Arc<[InstanceId]>,
    },
    /// The gateway ends. It accepts no beat after this frame.
    Leaving,
}

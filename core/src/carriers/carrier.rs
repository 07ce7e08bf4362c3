//! What a replica of the operator knows of one process of a gateway.

use std::collections::VecDeque;

use hashbrown::{HashMap, hash_map::Entry};

use crate::{
    carriers::{
        frames::{Incarnation, InstanceId, Sequence, Term},
        gateway::ACKNOWLEDGED_WITHIN,
        proof::CarrierProof,
        rights::{self, Identity, Right},
    },
    liveness::index::{Carried, CarrierId, Delivery, Index, Observed},
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};

/// Whether a gateway carries beats to this replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its stream is open.
    Carries,
    /// Its stream is broken. Nothing says yet that the gateway is dead (G4).
    Cut {
        /// Since when.
        since: MonotonicTime,
        /// How many instances it had carried last; `None` before they were counted.
        carried: Option<usize>,
    },
    /// It is dead, or does not matter any more. Other gateways prove the time since then.
    Gone {
        /// Since when.
        since: MonotonicTime,
    },
}

/// An instance that was introduced.
#[derive(Debug)]
struct Introduced {
    lease: Key,
    identity: Identity,
    /// Whether a leader has allowed it to renew.
    allowed: bool,
    /// Its record, for as long as the Lease and its owner are the same (G6).
    carried: Option<Carried>,
    /// Whether its last beat was not taken in, because the Lease or its owner was replaced. A leader may have accepted
    /// the beat: it may have seen the new Lease before, and judged anew.
    missed: bool,
}

/// One process of a gateway.
#[derive(Debug)]
pub struct Carrier {
    pub(super) incarnation: Incarnation,
    pub(super) standing: Standing,
    pub(super) proof: CarrierProof,
    /// Whether it has said that it ends.
    pub(super) says_it_ends: bool,
    /// The last batch that was taken in.
    pub(super) taken: Sequence,
    /// The last term of this replica that it was told.
    pub(super) told: Option<Term>,
    introduced: HashMap<InstanceId, Introduced>,
    /// Batches that may be acknowledged, and when each was taken in.
    unacknowledged: VecDeque<Unacknowledged>,
}

/// A batch that may be acknowledged.
#[derive(Debug)]
pub(super) struct Unacknowledged {
    pub(super) batch: Sequence,
    /// The instances with beats that could not be taken in.
    pub(super) not_held: Vec<InstanceId>,
    taken_at: MonotonicTime,
}

/// What a batch came to.
#[derive(Debug, Default)]
pub struct Taken {
    /// The registrations for which the decision may change.
    pub wake: Vec<Key>,
    /// The instances that the identity may not renew any more, or that are not known.
    pub doubtful: Vec<InstanceId>,
}

impl Carrier {
    /// A process that has just said hello.
    pub(super) fn new(incarnation: Incarnation, now: MonotonicTime) -> Self {
        Self {
            incarnation,
            standing: Standing::Carries,
            proof: CarrierProof::new(now),
            says_it_ends: false,
            taken: Sequence::default(),
            told: None,
            introduced: HashMap::new(),
            unacknowledged: VecDeque::new(),
        }
    }

    /// Whether its stream is open.
    pub(super) fn carries(&self) -> bool {
        self.standing == Standing::Carries
    }

    /// Its stream is broken.
    pub(super) fn interrupted(&mut self, now: MonotonicTime) {
        if self.carries() {
            self.standing = match self.says_it_ends {
                true => Standing::Gone { since: now },
                false => Standing::Cut { since: now, carried: None },
            };
        }
        self.proof.interrupted();
        self.introduced.clear();
        self.unacknowledged.clear();
    }

    /// Takes in the introduction of an instance. Another identity or another Lease under a known number is a mistake
    /// of the gateway, and is ignored.
    pub(super) fn introduce(
        &mut self,
        id: InstanceId,
        lease: Key,
        identity: Identity,
        allowed: bool,
    ) {
        match self.introduced.entry(id) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.allowed |= allowed && known.lease == lease && known.identity == identity;
            }
            Entry::Vacant(new) => {
                new.insert(Introduced { lease, identity, allowed, carried: None, missed: false });
            }
        }
    }

    /// The Lease and the identity of an instance that was introduced.
    pub(super) fn named(&self, id: InstanceId) -> Option<(&Key, &Identity)> {
        let introduced = self.introduced.get(&id)?;
        Some((&introduced.lease, &introduced.identity))
    }

    /// The instances that a leader has allowed to renew, with their Leases.
    pub(super) fn allowed(&self) -> impl Iterator<Item = (InstanceId, &Key)> {
        let allowed = self.introduced.iter().filter(|(_, known)| known.allowed);
        allowed.map(|(id, known)| (*id, &known.lease))
    }

    /// Forgets an instance that was refused. A later beat of it has another number.
    pub(super) fn forget(&mut self, id: InstanceId) {
        self.introduced.remove(&id);
    }

    /// Takes in beats. Each costs one look-up by number, and no text is compared.
    pub(super) fn take_in(
        &mut self,
        by: CarrierId,
        ids: &[InstanceId],
        delivery: Delivery,
        index: &mut Index,
        now: MonotonicTime,
    ) -> Taken {
        let mut taken = Taken::default();
        for id in ids {
            match self.beat(*id, by, delivery, index, now) {
                Some(observed) => taken.wake.extend(observed.wake),
                None => taken.doubtful.push(*id),
            }
        }
        taken
    }

    fn beat(
        &mut self,
        id: InstanceId,
        by: CarrierId,
        delivery: Delivery,
        index: &mut Index,
        now: MonotonicTime,
    ) -> Option<Observed> {
        let introduced = self.introduced.get_mut(&id)?;
        let known = introduced.carried.and_then(|carried| index.carry(carried, by, delivery, now));
        if known.is_some() {
            introduced.missed = false;
            return known;
        }
        // The Lease has appeared since, or it or its owner was replaced. The identity has to own the new one (G6), or
        // to be judged anew.
        introduced.missed |= introduced.allowed && introduced.carried.is_some();
        introduced.allowed &= introduced.carried.is_none();
        let (carried, origin) = index.find_carried(&introduced.lease)?;
        introduced.carried = match rights::right(&introduced.identity, &introduced.lease, origin) {
            Right::Renews => Some(carried),
            Right::NeedsReview => introduced.allowed.then_some(carried),
            Right::Refused(_) => None,
        };
        let taken = index.carry(introduced.carried?, by, delivery, now)?;
        introduced.missed = false;
        Some(taken)
    }

    /// A term begins. A beat of a replaced Lease that was not taken in may have been accepted by the leader before.
    pub(super) fn take_in_missed(&mut self, by: CarrierId, index: &mut Index, now: MonotonicTime) {
        for introduced in self.introduced.values_mut().filter(|introduced| introduced.missed) {
            introduced.missed = false;
            if let Some((carried, _)) = index.find_carried(&introduced.lease) {
                let _ = index.carry(carried, by, Delivery::Late, now);
            }
        }
    }

    /// A batch was taken in that the leader may acknowledge.
    pub(super) fn may_acknowledge(
        &mut self,
        batch: Sequence,
        not_held: Vec<InstanceId>,
        taken_at: MonotonicTime,
    ) {
        let is_old = |known: &Unacknowledged| taken_at.since(known.taken_at) > ACKNOWLEDGED_WITHIN;
        while self.unacknowledged.front().is_some_and(is_old) {
            self.unacknowledged.pop_front();
        }
        self.unacknowledged.push_back(Unacknowledged { batch, not_held, taken_at });
    }

    /// The batches to acknowledge now.
    pub(super) fn acknowledge(&mut self) -> impl Iterator<Item = Unacknowledged> {
        std::mem::take(&mut self.unacknowledged).into_iter()
    }

    /// The instances that no leader has allowed to renew.
    pub(super) fn not_allowed(&self) -> impl Iterator<Item = InstanceId> {
        self.introduced.iter().filter(|(_, known)| !known.allowed).map(|(id, _)| *id)
    }
}

/// Whether an instance may renew by what the index knows. A replica that stands by takes in such beats before the leader
/// has judged, since the leader may not hear them. Of others it keeps nothing: the gateway introduces them again when they
/// are allowed, and to the next leader. Strangers could fill the memory otherwise, as no replica but the leader learns
/// that it has refused them.
pub(super) fn owns(index: &Index, lease: &Key, identity: &Identity) -> bool {
    let found = index.find_carried(lease);
    found.is_some_and(|(_, origin)| rights::right(identity, lease, origin) == Right::Renews)
}

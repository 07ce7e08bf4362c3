//! The instances that beat through this gateway, each with an identity, under the numbers that batches use.

use std::collections::{BTreeMap, HashMap};

use crate::{
    carriers::{
        frames::{InstanceId, Sequence},
        rights::Identity,
    },
    vocabulary::{key::Key, pace::Pace},
};

/// What the gateway knows of the right of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The leader has not answered yet.
    Asked,
    /// It may renew, at this pace.
    Allowed(Pace),
}

#[derive(Debug)]
struct Member {
    name: (Key, Identity),
    judgement: Judgement,
    /// The batch of its last beat.
    batch: Sequence,
}

/// All instances. A number is not used again in an epoch (G6).
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: BTreeMap<InstanceId, Member>,
    /// The next number.
    next: u32,
    ids: HashMap<(Key, Identity), InstanceId>,
}

impl Roster {
    /// The number of an instance; a new number if it has none.
    pub(super) fn find_or_add(
        &mut self,
        lease: &Key,
        identity: &Identity,
    ) -> (InstanceId, Judgement) {
        let name = (lease.clone(), identity.clone());
        if let Some(id) = self.ids.get(&name) {
            return (*id, self.judgement(*id).unwrap_or(Judgement::Asked));
        }
        let id = InstanceId(self.next);
        self.next = self.next.checked_add(1).expect("the numbers are used up: start again");
        self.ids.insert(name.clone(), id);
        let (judgement, batch) = (Judgement::Asked, Sequence::default());
        self.members.insert(id, Member { name, judgement, batch });
        (id, Judgement::Asked)
    }

    /// Whether a leader has allowed an identity to renew a Lease.
    pub(super) fn is_allowed(&self, lease: &Key, identity: &Identity) -> bool {
        let id = self.ids.get(&(lease.clone(), identity.clone()));
        matches!(id.and_then(|id| self.judgement(*id)), Some(Judgement::Allowed(_)))
    }

    pub(super) fn judgement(&self, id: InstanceId) -> Option<Judgement> {
        self.get(id).map(|member| member.judgement)
    }

    /// Whether a leader has judged an instance.
    pub(super) fn is_judged(&self, id: InstanceId) -> bool {
        self.judgement(id) != Some(Judgement::Asked)
    }

    /// The Lease and the identity of a number.
    pub(super) fn named(&self, id: InstanceId) -> Option<&(Key, Identity)> {
        self.get(id).map(|member| &member.name)
    }

    /// The instances that the leader has not judged.
    pub(super) fn asked(&self) -> Vec<InstanceId> {
        let asked = self.members.iter().filter(|(_, it)| it.judgement == Judgement::Asked);
        asked.map(|(id, _)| *id).collect()
    }

    /// Records that an instance may renew, at this pace.
    pub(super) fn allow(&mut self, id: InstanceId, pace: Pace) {
        if let Some(member) = self.get_mut(id) {
            member.judgement = Judgement::Allowed(pace);
        }
    }

    pub(super) fn remove(&mut self, id: InstanceId) {
        if let Some(member) = self.members.remove(&id) {
            self.ids.remove(&member.name);
        }
    }

    pub(super) fn has_beaten(&mut self, id: InstanceId, batch: Sequence) {
        if let Some(member) = self.get_mut(id) {
            member.batch = batch;
        }
    }

    /// The instances that have beaten after a batch.
    pub(super) fn beaten_since(&self, batch: Sequence) -> Vec<InstanceId> {
        let later = self.members.iter().filter(|(_, member)| member.batch > batch);
        later.map(|(id, _)| *id).collect()
    }

    fn get(&self, id: InstanceId) -> Option<&Member> {
        self.members.get(&id)
    }

    fn get_mut(&mut self, id: InstanceId) -> Option<&mut Member> {
        self.members.get_mut(&id)
    }
}

//! The instances that beat through this gateway, each with an identity, under the numbers that batches use.

use std::collections::HashMap;

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

/// All instances. A number is not used again in an epoch (G6), so what was removed leaves an empty place.
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: Vec<Option<Member>>,
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
        let id = u32::try_from(self.members.len()).expect("no memory holds that many instances");
        let id = InstanceId(id);
        self.ids.insert(name.clone(), id);
        let (judgement, batch) = (Judgement::Asked, Sequence::default());
        self.members.push(Some(Member { name, judgement, batch }));
        (id, Judgement::Asked)
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
        let asked = |member: &Option<Member>| {
            member.as_ref().is_some_and(|member| member.judgement == Judgement::Asked)
        };
        self.numbered().filter(|(_, member)| asked(member)).map(|(id, _)| id).collect()
    }

    /// Records that an instance may renew, at this pace.
    pub(super) fn allow(&mut self, id: InstanceId, pace: Pace) {
        if let Some(member) = self.get_mut(id) {
            member.judgement = Judgement::Allowed(pace);
        }
    }

    pub(super) fn remove(&mut self, id: InstanceId) {
        if let Some(member) = self.members.get_mut(id.0 as usize).and_then(Option::take) {
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
        let known = self.numbered().filter_map(|(id, member)| Some((id, member.as_ref()?)));
        known.filter(|(_, member)| member.batch > batch).map(|(id, _)| id).collect()
    }

    fn numbered(&self) -> impl Iterator<Item = (InstanceId, &Option<Member>)> {
        (0..).map(InstanceId).zip(&self.members)
    }

    fn get(&self, id: InstanceId) -> Option<&Member> {
        self.members.get(id.0 as usize)?.as_ref()
    }

    fn get_mut(&mut self, id: InstanceId) -> Option<&mut Member> {
        self.members.get_mut(id.0 as usize)?.as_mut()
    }
}

//! What can be asked of all gateways.

use super::{CarrierSet, PodUid};
use crate::{
    carriers::{
        frames::{InstanceId, Term},
        rights::Identity,
        round::Round,
    },
    liveness::index::CarrierId,
    vocabulary::key::Key,
};

impl CarrierSet {
    /// The Lease and the identity of an instance that was introduced.
    pub fn named(&self, pod: &PodUid, id: InstanceId) -> Option<(&Key, &Identity)> {
        self.carriers[self.pods.get(pod)?.at()].named(id)
    }

    /// The instances that a leader has allowed to renew, with their Leases. A gateway that is dead has none.
    pub fn allowed(&self) -> impl Iterator<Item = (&PodUid, InstanceId, &Key)> {
        self.open().flat_map(|(pod, carrier)| {
            self.carriers[carrier.at()].allowed().map(move |(id, lease)| (pod, id, lease))
        })
    }

    /// The term in which this replica leads.
    pub fn term(&self) -> Option<Term> {
        self.round.as_ref().map(Round::term)
    }

    /// The Pod of a gateway.
    pub fn pod_of(&self, carrier: CarrierId) -> &PodUid {
        &self.carriers[carrier.at()].incarnation.pod
    }

    /// The Pods of all gateways that this replica has heard.
    pub fn pods(&self) -> impl Iterator<Item = &PodUid> {
        self.pods.keys()
    }

    /// The Pods with an open stream.
    pub fn connected_pods(&self) -> impl Iterator<Item = &PodUid> {
        self.open().map(|(pod, _)| pod)
    }
}

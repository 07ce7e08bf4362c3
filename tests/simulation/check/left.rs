//! P3, P5 and L7: which addresses have left what is published, and why.

use std::{collections::BTreeSet, net::IpAddr, rc::Rc};

use beatkeeper_api::{
    InstanceState, heartbeat::REGISTRATION_LABEL, registration::ADOPT_ANNOTATION,
};
use beatkeeper_core::{objects::marks::SERVICE_NAME_LABEL, vocabulary::key::Key};

use super::{Check, Explanation, Purpose};
use crate::{
    object::{LEASES, PODS, REGISTRATIONS, SLICES},
    store::{Change, Store, Stored},
    workload::Workload,
};

/// Events may still be on their way this long after a watch has been made again, in milliseconds.
const LATELY: u64 = 2000;

impl Check {
    /// Checks which addresses have left the union of the slices, and why: P3, P5, and the part of P1 that
    /// concerns how late a decision is carried out.
    pub(super) fn union_changed(
        &self,
        store: &Store,
        service: &Key,
        purpose: Option<&Purpose>,
        by_operator: bool,
    ) {
        let (mut after, mut ours) = (BTreeSet::new(), BTreeSet::new());
        for stored in store.all(SLICES) {
            let object = stored.object();
            let Some(slice) = object.slice() else { continue };
            if stored.key().namespace != service.namespace
                || stored.label(SERVICE_NAME_LABEL) != Some(&service.name)
            {
                continue;
            }
            let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
            let addresses: Vec<IpAddr> =
                addresses.filter_map(|address| address.parse().ok()).collect();
            if object.is_operators() {
                ours.extend(&addresses);
            }
            after.extend(addresses);
        }
        let before =
            self.published.borrow_mut().insert(service.clone(), after.clone()).unwrap_or_default();
        if before != after {
            self.tell(|| {
                let gone: Vec<_> = before.difference(&after).collect();
                let come: Vec<_> = after.difference(&before).collect();
                format!("published {service}: +{come:?} -{gone:?}")
            });
        }
        if !by_operator {
            return;
        }
        for address in &ours {
            let proper = self.legacy.borrow().contains(address)
                || self.owner(*address).is_some_and(|owner| !owner.impostor);
            if !proper {
                self.fail(|| format!("P5: {address} is published for {service}"));
            }
        }
        for address in before.difference(&after) {
            let why = purpose.and_then(|purpose| purpose.explanations.get(service));
            let (Some(why), Some(purpose)) = (why, purpose) else {
                return self.fail(|| format!("P3: {address} left {service} without a plan"));
            };
            if self.legacy.borrow().contains(address) && consents(store, service) {
                self.fail(|| format!("P3: the adopted {address} has left {service}"));
            }
            // Another client has deleted the other slice with this address. The operator restores it when it learns of that.
            let taken_away = self.taken_away.borrow().get(&(service.clone(), *address)).copied();
            if taken_away.is_some_and(|moment| moment >= why.decided) {
                continue;
            }
            self.has_left(store, *address, after.len(), why, purpose.sent);
        }
    }

    /// Notes that another client has taken addresses out of a slice.
    pub(super) fn note_taken_away(&self, service: &Key, change: &Change) {
        let addresses = |stored: &Option<Rc<Stored>>| -> BTreeSet<IpAddr> {
            let slice = stored.as_ref().and_then(|stored| stored.object().slice());
            let endpoints = slice.into_iter().flat_map(|slice| &slice.endpoints);
            let texts = endpoints.flat_map(|endpoint| &endpoint.addresses);
            texts.filter_map(|address| address.parse().ok()).collect()
        };
        let (before, after) = (addresses(&change.before), addresses(&change.after));
        let now = self.now.get();
        let gone = before.difference(&after).map(|address| ((service.clone(), *address), now));
        self.taken_away.borrow_mut().extend(gone);
    }

    fn has_left(&self, store: &Store, address: IpAddr, left: usize, why: &Explanation, sent: u64) {
        if why.wanted.contains(&address) {
            return self.fail(|| format!("P3: {address} is wanted and has left"));
        }
        let Some(owner) = self.owner(address) else { return };
        let lease = owner.lease();
        match why.unwanted.get(&address) {
            Some((InstanceState::Expired, _, token)) => {
                self.prunes.set(self.prunes.get() + 1);
                let beats = self.beats.borrow();
                let since = beats.get(&lease).and_then(|all| all.last());
                // A decision must be carried out within the time of a call.
                if let Some(beat) = since
                    && Some(&beat.token) != token.as_ref()
                    && beat.at > why.decided
                    && beat.at + 5000 < sent
                {
                    self.fail(|| {
                        format!(
                            "P1: {lease} has left at a decision of {}, sent at {sent}, but beat at {}",
                            why.decided, beat.at
                        )
                    });
                }
                // L7 holds for the moment of the decision. The instances that were ready during a dry run may be gone when
                // the dry run ends and the dead really leave.
                let dead = self.dead.borrow();
                let in_dry_run = dead.get(&lease).is_some_and(|dead| dead.in_dry_run);
                if left < why.min_ready && !in_dry_run {
                    self.fail(|| format!("L7: {address} has left, {left} are there"));
                }
            }
            Some((InstanceState::Cordoned | InstanceState::Rejected, ..)) => {}
            Some((state, reason, _)) => {
                self.fail(|| format!("P1: {lease} has left although it is {state:?} ({reason:?})"));
            }
            None => self.is_gone(store, address, &owner, why),
        }
    }

    /// The instance left because its Lease or its Pod is gone.
    fn is_gone(&self, store: &Store, address: IpAddr, owner: &Workload, why: &Explanation) {
        let lease = owner.lease();
        let Some(stored) = store.get(LEASES, &lease) else { return };
        let Some(known) = stored.object().lease() else { return };
        // An instance that had left can come back with a backup. It counts as gone all the same.
        if self.went_back.get() && !owner.lives() {
            return;
        }
        let here = !owner.in_pod
            || owner.address() == address.to_string()
                && store.get(PODS, &owner.pod_key()).is_some();
        let beats = self.beats.borrow();
        let uid = stored.uid();
        let first = beats.get(&lease).and_then(|all| all.iter().find(|it| &*it.token.uid == uid));
        let own = !owner.in_pod || owner.is_own(known);
        // A Lease without its label is known only to a process that saw it with the label.
        let labelled = stored.label(REGISTRATION_LABEL).is_some();
        let stripped = self.stripped.borrow().get(&lease).copied();
        if !labelled && stripped <= self.listed(why.process) {
            return;
        }
        if owner.in_pod && self.lacks_pods(why) {
            return;
        }
        if here && own && first.is_some_and(|first| first.at < why.decided) {
            self.fail(|| format!("P1: {lease} has left as if it were gone, but it is there"));
        }
    }

    /// Whether the process could not have seen Pods when it decided. It takes a Pod that has been replaced under its name
    /// for missing then. This is a limit of a hand-over that docs/design.md names.
    fn lacks_pods(&self, why: &Explanation) -> bool {
        let processes = self.processes.borrow();
        let Some(known) = processes.get(&why.process) else { return false };
        known
            .blind_to_pods
            .between(why.decided.saturating_sub(LATELY), why.decided + 1)
            .next()
            .is_some()
    }
}

/// Whether a person has consented to the adoption of what was written by hand.
pub(super) fn consents(store: &Store, registration: &Key) -> bool {
    let registration = store.get(REGISTRATIONS, registration);
    registration.is_some_and(|it| it.annotation(ADOPT_ANNOTATION).is_some())
}

//! Which Leases name which Pod.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use crate::{objects::heartbeat::Origin, vocabulary::key::Key};

/// For each Pod, the Leases that name it, with their registrations. They are ordered, so that neither the end of one
/// Lease nor a change of the Pod requires a search through all Leases of a service.
#[derive(Debug, Default)]
pub(super) struct Pods(HashMap<Key, Leases>);

/// Leases with their registrations.
type Leases = BTreeSet<(Arc<Key>, Arc<str>)>;

impl Pods {
    /// Notes that a Lease of the registration names this origin.
    pub(super) fn note(&mut self, registration: &Arc<Key>, lease: &Arc<str>, origin: &Origin) {
        if let Origin::Pod { name, .. } = origin {
            let pod = Key::new(&registration.namespace, name);
            self.0.entry(pod).or_default().insert((registration.clone(), lease.clone()));
        }
    }

    /// Notes that a Lease of the registration no longer names this origin.
    pub(super) fn unnote(&mut self, registration: &Arc<Key>, lease: &Arc<str>, origin: &Origin) {
        let Origin::Pod { name, .. } = origin else { return };
        let pod = Key::new(&registration.namespace, name);
        let Some(leases) = self.0.get_mut(&pod) else { return };
        leases.remove(&(registration.clone(), lease.clone()));
        if leases.is_empty() {
            self.0.remove(&pod);
        }
    }

    /// The registrations that have an instance in this Pod.
    pub(super) fn registrations_of(&self, pod: &Key) -> Vec<Key> {
        let leases = self.0.get(pod).into_iter().flatten();
        let mut registrations: Vec<Key> =
            leases.map(|(registration, _)| Key::clone(registration)).collect();
        registrations.dedup();
        registrations
    }

    /// The Leases of a registration that name this Pod.
    pub(super) fn leases_in(
        &self,
        registration: &Key,
        pod: &Key,
    ) -> impl Iterator<Item = Arc<str>> {
        let (registration, first) = (Arc::new(registration.clone()), Arc::from(""));
        let from = Bound::Included((registration.clone(), first));
        let leases = self.0.get(pod).map(|leases| leases.range((from, Bound::Unbounded)));
        leases
            .into_iter()
            .flatten()
            .take_while(move |(of, _)| *of == registration)
            .map(|(_, lease)| lease.clone())
    }
}

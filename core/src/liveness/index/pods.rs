//! Which registrations have an instance in which Pod.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{objects::heartbeat::Origin, vocabulary::key::Key};

/// For each Pod, the registrations with an instance in it, and how many Leases of the registration name the Pod. The
/// count is kept so that the end of one Lease does not require a search through all Leases of its service.
#[derive(Debug, Default)]
pub(super) struct Pods(HashMap<Key, BTreeMap<Arc<Key>, usize>>);

impl Pods {
    /// Notes that a Lease of the registration names this origin.
    pub(super) fn note(&mut self, registration: &Arc<Key>, origin: &Origin) {
        if let Origin::Pod { name, .. } = origin {
            let pod = Key::new(&registration.namespace, name);
            *self.0.entry(pod).or_default().entry(registration.clone()).or_default() += 1;
        }
    }

    /// Notes that a Lease of the registration no longer names this origin.
    pub(super) fn unnote(&mut self, registration: &Arc<Key>, origin: &Origin) {
        let Origin::Pod { name, .. } = origin else { return };
        let pod = Key::new(&registration.namespace, name);
        let Some(registrations) = self.0.get_mut(&pod) else { return };
        if let Some(leases) = registrations.get_mut(registration) {
            *leases -= 1;
            if *leases == 0 {
                registrations.remove(registration);
            }
        }
        if registrations.is_empty() {
            self.0.remove(&pod);
        }
    }

    /// The registrations that have an instance in this Pod.
    pub(super) fn registrations_of(&self, pod: &Key) -> Vec<Key> {
        let registrations = self.0.get(pod).into_iter().flat_map(BTreeMap::keys);
        registrations.map(|key| Key::clone(key)).collect()
    }
}

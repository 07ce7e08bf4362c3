//! What the index knows about cordons.

use crate::{
    liveness::index::{
        Index,
        cordon_notes::{Notes, Unmarked},
    },
    objects::heartbeat::LeaseContent,
    vocabulary::key::Key,
};

impl Index {
    /// The cordons that the index has seen.
    pub(crate) fn cordons(&self) -> &Notes {
        &self.cordons
    }

    /// The cordons that the index has seen, for changes.
    pub(crate) fn cordons_mut(&mut self) -> &mut Notes {
        &mut self.cordons
    }

    /// Notes that a cordon was written to a Lease, as the watch will show later.
    pub fn cordon_is_written(&mut self, registration: &Key, unmarked: &Unmarked) {
        let Unmarked { lease, token, content, reason } = unmarked;
        let content =
            LeaseContent { cordoned: Some(reason.clone()), ..LeaseContent::clone(content) };
        self.cordons.observe(registration, lease, token, &content);
    }

    /// Notes that a registration is gone. Only those of its cordons are kept that Leases carry.
    pub fn forget_cordons(&mut self, registration: &Key) {
        let mut cordons = std::mem::take(&mut self.cordons);
        cordons.forget(registration, |lease| {
            self.record(registration, lease).is_some_and(|record| record.content.cordoned.is_some())
        });
        self.cordons = cordons;
    }

    /// Calls [`Self::forget_cordons`] for each registration that is not known. A Lease may name any registration,
    /// whether it exists or not.
    pub fn forget_cordons_but(&mut self, is_known: impl Fn(&Key) -> bool) {
        let all = self.cordons.registrations();
        let strange: Vec<Key> =
            all.filter(|registration| !is_known(registration)).cloned().collect();
        strange.iter().for_each(|registration| self.forget_cordons(registration));
    }
}

//! What the index has seen of cordons.

use super::{Index, Key};
use crate::{
    cordon::{Notes, Unmarked},
    heartbeat::Claim,
};

impl Index {
    /// What was seen of cordons.
    pub(crate) fn cordons(&self) -> &Notes {
        &self.cordons
    }

    /// What was seen of cordons.
    pub(crate) fn cordons_mut(&mut self) -> &mut Notes {
        &mut self.cordons
    }

    /// A Lease was written, as the watch will show: it carries the cordon now.
    pub fn cordon_is_written(&mut self, registration: &Key, unmarked: &Unmarked) {
        let Unmarked { lease, token, claim, reason } = unmarked;
        let claim = Claim { cordoned: Some(reason.clone()), ..Claim::clone(claim) };
        self.cordons.observe(registration, lease, token, &claim);
    }

    /// A registration is gone: of its cordons those are left that Leases carry.
    pub fn forget_cordons(&mut self, registration: &Key) {
        let mut cordons = std::mem::take(&mut self.cordons);
        cordons.forget(registration, |lease| {
            self.record(registration, lease).is_some_and(|record| record.claim.cordoned.is_some())
        });
        self.cordons = cordons;
    }

    /// The same for all registrations but these: a Lease may carry the name of any, whether there is one or not.
    pub fn forget_cordons_but(&mut self, is_known: impl Fn(&Key) -> bool) {
        let all = self.cordons.registrations();
        let strange: Vec<Key> =
            all.filter(|registration| !is_known(registration)).cloned().collect();
        strange.iter().for_each(|registration| self.forget_cordons(registration));
    }
}

//! The registration that is reconciled.

use std::sync::Arc;

use beatkeeper_api::ServiceRegistration;

use crate::controller::trace::recording::Trace;
use beatkeeper_core::{
    decide::verdict::Verdict, liveness::ttl::TtlHistory, objects::registration::Registration,
    report::applied::Applied, vocabulary::key::Key,
};

/// A registration, as it is when its reconciliation begins.
pub(crate) struct Subject {
    pub(crate) object: Arc<ServiceRegistration>,
    pub(crate) registration: Registration,
    pub(crate) ttl: TtlHistory,
    pub(crate) trace: Trace,
}

impl Subject {
    pub(crate) fn key(&self) -> &Key {
        &self.registration.key
    }

    pub(crate) fn uid(&self) -> &str {
        &self.registration.uid
    }

    /// Adds the longest former ttl to what was applied, if it still applies to an instance that has not adopted the
    /// new pace yet (L8).
    pub(crate) fn with_former_ttl(&self, verdicts: &[Verdict], applied: Applied) -> Applied {
        let mut settled = verdicts.iter().filter_map(Verdict::lease_decision);
        let awaited = settled.any(|settled| settled.wanted.is_awaited());
        Applied { former_ttl: awaited.then(|| self.ttl.longest()), ..applied }
    }
}

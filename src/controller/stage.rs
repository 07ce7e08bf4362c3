//! The stage on which a registration's instances are judged: the Service and what is published for
//! it, and whether anything stands in the way.

use std::{sync::Arc, time::Duration};

use super::{context::Context, establish, gather};
use crate::core::{
    endpoint::Family,
    moment::Moment,
    registration::Registration,
    service::ServiceView,
    standing::{self, Stall},
    status::Applied,
};

/// A Service that somebody else made and deleted is most often being replaced. Only after this long
/// is one of our own made in its place.
const REPLACEMENT_GRACE: Duration = Duration::from_secs(10);

/// What the decision rests on besides heartbeats.
pub(super) struct Stage {
    pub(super) gathered: gather::Gathered,
    pub(super) service: Option<Arc<ServiceView>>,
    pub(super) stall: Option<Stall>,
    /// Why the Service could not be established, if it could not.
    pub(super) failure: Option<String>,
    /// When to look at the Service again.
    pub(super) look_again: Option<Moment>,
}

impl Stage {
    fn new(
        gathered: gather::Gathered,
        service: Option<Arc<ServiceView>>,
        stall: Option<Stall>,
    ) -> Self {
        Self { gathered, service, stall, failure: None, look_again: None }
    }

    pub(super) fn failed(&self, mut applied: Applied) -> Applied {
        applied.failure = self.failure.clone().or(applied.failure);
        applied
    }

    pub(super) fn families(&self) -> &[Family] {
        // Without a Service nothing is added, and what is there may be of either family.
        self.service.as_ref().map_or(&[Family::V4, Family::V6], |service| &service.families)
    }
}

/// Gathers (no client required), and establishes the Service (client required) unless somebody else
/// is in the way.
pub(super) async fn set(registration: &Registration, context: &Context) -> Stage {
    let gathered = gather::surroundings(registration, context);
    let known = gathered.service.clone();
    if let Some(stall) = standing::stall(registration, known.as_deref(), &gathered.neighbours) {
        return Stage::new(gathered, known, Some(stall));
    }
    if let Some(until) = being_replaced(registration, known.as_deref(), context) {
        let stall = standing::service_gone(registration);
        return Stage { look_again: Some(until), ..Stage::new(gathered, None, Some(stall)) };
    }
    match establish::service(registration, known, context).await {
        Ok((service, false)) => Stage::new(gathered, Some(service), None),
        Ok((service, true)) => {
            let gathered = gather::surroundings(registration, context);
            let stall = standing::stall(registration, Some(&service), &gathered.neighbours);
            Stage::new(gathered, Some(service), stall)
        }
        Err(error) if error.is_namespace_ending() => Stage::new(gathered, None, None),
        Err(error) => {
            let service = gathered.service.clone();
            Stage { failure: Some(error.to_string()), ..Stage::new(gathered, service, None) }
        }
    }
}

/// Until when to wait for somebody else to make the Service anew that he deleted, if one was.
fn being_replaced(
    registration: &Registration,
    known: Option<&ServiceView>,
    context: &Context,
) -> Option<Moment> {
    let now = context.clock.now();
    context.remember(&registration.key, &registration.uid, |memory| {
        if let Some(service) = known {
            memory.foreign_service = service.owner.is_none();
            memory.service_gone = None;
        }
        if known.is_some() || !memory.foreign_service {
            return None;
        }
        let until = *memory.service_gone.get_or_insert(now) + REPLACEMENT_GRACE;
        (now < until).then_some(until)
    })
}

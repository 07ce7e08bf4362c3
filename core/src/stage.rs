//! The stage on which a registration's instances are judged: the Service and what is published for
//! it, and whether anything stands in the way.

use std::sync::Arc;

use super::{
    adoption::Adoption, endpoint::Family, frozen::Earlier, gather::Gathered, moment::Moment,
    refusal::HeldBack, service::ServiceView, standing::Stall, status::Applied,
};

/// What the decision rests on besides heartbeats.
pub struct Stage {
    /// What is known of the surroundings.
    pub gathered: Gathered,
    /// The Service, when there is one.
    pub service: Option<Arc<ServiceView>>,
    /// Why nothing may be added, if that is so.
    pub stall: Option<Stall>,
    /// Why the Service could not be established, if it could not.
    pub failure: Option<String>,
    /// When to look at the Service again.
    pub look_again: Option<Moment>,
    /// What would be done before the plan, were this no dry run.
    pub announced: Vec<String>,
    /// What is taken over from people.
    pub adoption: Adoption,
    /// Where outside instances were when something could last be changed.
    pub earlier: Arc<Earlier>,
    /// What the API server has refused, and is not to be tried yet.
    pub held_back: HeldBack,
}

impl Stage {
    /// A stage on which nothing has failed and nobody is waited for.
    pub fn new(
        gathered: Gathered,
        service: Option<Arc<ServiceView>>,
        stall: Option<Stall>,
    ) -> Self {
        Self {
            gathered,
            service,
            stall,
            failure: None,
            look_again: None,
            announced: Vec::new(),
            adoption: Adoption::default(),
            earlier: Arc::default(),
            held_back: HeldBack::default(),
        }
    }

    /// The failure of establishing the Service goes before one of a write.
    pub fn failed(&self, mut applied: Applied) -> Applied {
        applied.failure = self.failure.clone().or(applied.failure);
        applied
    }

    /// Whether nothing may be added and nothing changed, so that only the dead leave.
    pub fn is_closed(&self) -> bool {
        self.stall.is_some() || self.service.is_none()
    }

    /// The address families that may be published.
    pub fn families(&self) -> &[Family] {
        // Without a Service nothing is added, and what is there may be of either family.
        self.service.as_ref().map_or(&[Family::V4, Family::V6], |service| &service.families)
    }

    /// Where the instances were before, when nothing may be changed.
    pub fn frozen(&self) -> Option<&Earlier> {
        self.is_closed().then_some(&*self.earlier)
    }
}

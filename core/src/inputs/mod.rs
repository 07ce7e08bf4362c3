//! The inputs of a decision about the instances of a registration: the Service, what is published for it, and whether
//! publishing is prevented.

pub mod earlier;
pub mod held_back;
pub mod lookups;
pub mod preconditions;
pub mod seen;
pub mod snapshot;
pub mod stall;

use std::sync::Arc;

use crate::{
    adoption::adopted::Adoption,
    inputs::{earlier::Earlier, held_back::HeldBack, snapshot::Snapshot, stall::Stall},
    objects::service::ServiceView,
    vocabulary::endpoint::Family,
};

/// The inputs of a decision apart from heartbeats.
pub struct Inputs {
    /// What is known of the objects around the registration.
    pub snapshot: Snapshot,
    /// The Service, if it exists.
    pub service: Option<Arc<ServiceView>>,
    /// Why nothing may be added; `None` if it may.
    pub stall: Option<Stall>,
    /// In a dry run, the writes that would be made before those of the plan.
    pub announced: Vec<String>,
    /// What is adopted.
    pub adoption: Adoption,
    /// The addresses of outside instances when something could last be changed.
    pub earlier: Arc<Earlier>,
    /// What the API server has refused and must not be tried yet.
    pub held_back: HeldBack,
}

impl Inputs {
    /// Inputs without adoptions and refusals.
    pub fn new(
        snapshot: Snapshot,
        service: Option<Arc<ServiceView>>,
        stall: Option<Stall>,
    ) -> Self {
        Self {
            snapshot,
            service,
            stall,
            announced: Vec::new(),
            adoption: Adoption::default(),
            earlier: Arc::default(),
            held_back: HeldBack::default(),
        }
    }

    /// Whether nothing may be added or changed. Then only dead instances leave.
    pub fn is_closed(&self) -> bool {
        self.stall.is_some() || self.service.is_none()
    }

    /// The address families that may be published.
    pub fn families(&self) -> &[Family] {
        // Without a Service, nothing is added, and what is published may be of either family.
        self.service.as_ref().map_or(&[Family::V4, Family::V6], |service| &service.families)
    }

    /// The earlier addresses of outside instances, if nothing may be changed.
    pub fn frozen(&self) -> Option<&Earlier> {
        self.is_closed().then_some(&*self.earlier)
    }
}

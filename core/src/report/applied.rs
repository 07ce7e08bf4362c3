//! The outcome of a plan.

use std::time::Duration;

use beatkeeper_api::AdoptedInstance;

use crate::{
    decide::cordons::Cordons, objects::published_addresses::PublishedAddresses,
    plan::refusals::RefusedNow, vocabulary::failure::Failure,
};

/// The outcome of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// How many objects were written.
    pub writes: usize,
    /// A write that failed and will be retried.
    pub failure: Option<Failure>,
    /// What the operator's slices contain now; in a dry run, what they would contain. It may be large, so it is
    /// emptied in an outcome that waits to be reported.
    pub published: PublishedAddresses,
    /// What the API server refuses to have published. It will be retried.
    pub refused: RefusedNow,
    /// In a dry run, what would have been written.
    pub dry_run: Option<String>,
    /// The longest former ttl that still applies to an instance, because the instance still keeps its former pace
    /// (L8).
    pub former_ttl: Option<Duration>,
    /// The adopted instances of the prior status that are no longer adopted.
    pub adoption_ended: Vec<AdoptedInstance>,
    /// The cordons of the registration.
    pub cordons: Cordons,
}

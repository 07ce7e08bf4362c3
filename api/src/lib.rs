//! The API of Beatkeeper.
//!
//! Two things make it up: the [`ServiceRegistration`] resource, by which people declare what is to
//! be published ([`registration`], [`status`]), and the [`heartbeat`] contract, by which instances
//! show that they are alive. Defaults are kept here and nowhere else.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bearer;
pub mod beats;
pub mod duration;
pub mod explain;
pub mod gateway;
pub mod heartbeat;
pub mod keep;
pub mod registration;
pub mod status;
pub mod text;

mod carrier;
mod crd;
mod ports;
mod reference;
mod rules;

pub use carrier::Carrier;
pub use crd::{crd, crd_yaml};
pub use ports::{InstancePort, PortSpec};
pub use reference::reference_markdown;
pub use registration::{
    GROUP, InstanceSpec, Protection, ServiceRegistration, ServiceRegistrationSpec, VERSION,
};
pub use status::{
    AdoptedInstance, CordonedInstance, InstanceState, InstanceStatus, ServiceRegistrationStatus,
};

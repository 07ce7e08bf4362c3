//! What is read of each Kubernetes object.

pub mod consent;
pub mod decode;
pub mod heartbeat;
pub mod labels;
pub mod leftovers;
pub mod marks;
pub mod pod;
pub mod published_addresses;
pub mod registration;
pub mod salvage;
pub mod service;
pub mod spec_problem;

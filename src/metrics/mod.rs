//! What the metrics of the operator and of the agent share.

pub(crate) mod buckets;
pub(crate) mod catalogue;
pub(crate) mod exposition;
#[cfg(test)]
pub(crate) mod families;
pub mod page;
pub(crate) mod usage;

//! Plans the writes that bring a Service's slices and Endpoints object to what was decided.

pub mod build;
pub mod change_limits;
pub mod diff;
pub mod draft;
pub mod endpoint_conflicts;
pub mod fill;
pub mod frozen;
pub mod hold_back;
pub mod kept;
mod kept_listing;
pub mod listing;
pub mod meta;
pub mod pack;
pub mod read;
pub mod refusals;
pub mod slices;
pub mod target;
pub mod trial;
pub mod write;

#[cfg(test)]
mod tests;

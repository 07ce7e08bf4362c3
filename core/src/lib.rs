//! The decisions of Beatkeeper, without I/O, clocks or async. The inputs are observations and the present moment; the
//! outputs are decisions and a plan.

pub mod access;
pub mod account;
pub mod address;
pub mod adoption;
pub mod bucket;
pub mod claims;
pub mod cordon;
pub mod deaf;
pub mod decide;
pub mod depends;
pub mod dry_run;
pub mod endpoint;
pub mod evidence;
pub mod flapping;
pub mod flow;
pub mod frozen;
pub mod gates;
pub mod gather;
pub mod health;
pub mod heartbeat;
pub mod history;
pub mod in_slices;
pub mod index;
pub mod instance;
pub mod labels;
pub mod leader;
pub mod leftovers;
pub mod lenient;
pub mod memory;
pub mod moment;
pub mod notice;
pub mod path;
pub mod plan;
pub mod planning;
pub mod pod;
pub mod proven;
pub mod reading;
pub mod refusal;
pub mod registration;
pub mod rhythm;
pub mod service;
pub mod stage;
pub mod standing;
pub mod status;
pub mod takeover;
pub mod temper;
pub mod told;
pub mod ttl;
pub mod verdict;
pub mod words;
pub mod world;

mod guard;
mod judge;
mod placement;
mod weight;

#[cfg(test)]
mod tests;

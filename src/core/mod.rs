//! What is decided, without I/O, clocks or async: observations and the present moment go in,
//! decisions and a plan come out.

pub mod address;
pub mod claims;
pub mod decide;
pub mod endpoint;
pub mod evidence;
pub mod flow;
pub mod gather;
pub mod heartbeat;
pub mod index;
pub mod leader;
pub mod memory;
pub mod moment;
pub mod path;
pub mod plan;
pub mod planning;
pub mod pod;
pub mod proven;
pub mod registration;
pub mod service;
pub mod stage;
pub mod standing;
pub mod status;
pub mod ttl;
pub mod verdict;
pub mod world;

mod guard;
mod judge;
mod placement;

#[cfg(test)]
mod tests;

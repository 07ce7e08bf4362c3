//! What commands that change something share: what follows from a change, consent to it, and the writes.

pub mod consent;
pub mod obstacle;
pub mod registration;
pub mod service;
pub mod write;

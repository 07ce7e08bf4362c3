//! Beats that a gateway carries, and no Lease write (G1–G12 in docs/adr/0031).
//!
//! A *gateway* takes beats of many instances, and carries them in batches to every replica of the operator. It answers
//! an instance only after the leader has acknowledged the batch (G1). Both ends are state machines here: messages and
//! the present moment go in, messages and answers come out. Neither end compares its clock with that of another
//! process (G2).

pub mod carrier;
pub mod frames;
pub mod gateway;
pub mod proof;
pub mod rights;
pub mod round;
pub mod set;
pub mod silence;

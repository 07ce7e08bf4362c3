//! The frames of a stream between a replica of the operator and a gateway, as bytes (docs/adr/0036).
//!
//! A frame is its length as four bytes, the most significant one first, and then a message of Protocol Buffers.
//! A message has one kind. What a later version adds, as a field or as a kind, is skipped (G12).

pub mod codec;
pub mod down;
pub mod fields;
pub mod messages;
#[cfg(test)]
mod tests;
pub mod up;

//! What is printed of given objects at a given time.
#![allow(clippy::unwrap_used)]

mod carried;
mod console;
mod difference;
mod live;
mod load;
mod objects;
mod removal;
mod tree;
mod why;
mod why_leader;

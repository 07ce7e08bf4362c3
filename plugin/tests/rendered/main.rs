//! What is printed of given objects at a given time.
#![allow(clippy::unwrap_used)]

mod live;
mod objects;
mod tree;
mod why;

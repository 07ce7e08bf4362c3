//! The rules of structure that hold for the whole tree.

mod circles;
mod core;
mod examples;
mod names;
mod shell;
mod sizes;

//! The rules that hold for the whole tree, checked by reading its files.

mod circles;
mod core;
mod errors;
mod examples;
mod names;
mod paths;
mod pins;
mod reliability;
mod shell;
mod sizes;

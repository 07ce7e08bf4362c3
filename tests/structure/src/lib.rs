//! Reads which file of a crate imports which, from the tokens of its sources. It compiles nothing, so it takes
//! milliseconds, and it sees what a reader of a file has to follow: the paths as they are written.

pub mod allowed;
pub mod calls;
pub mod circles;
pub mod errors;
pub mod files;
pub mod functions;
pub mod package;
pub mod paths;

mod items;
mod module;

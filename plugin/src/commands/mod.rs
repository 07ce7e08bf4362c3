//! The commands, one file or folder each.

pub mod adopt;
pub mod check;
pub mod complete;
pub mod completion;
pub mod console;
pub mod console_server;
pub mod cordon;
pub mod diff;
pub mod drain;
pub mod get;
pub mod lint;
pub mod loglevel;
pub mod man;
pub mod support_bundle;
pub mod top;
pub mod uncordon;
pub mod version;
pub mod why;

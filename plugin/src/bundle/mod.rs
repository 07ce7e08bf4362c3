//! The support bundle: what is needed to find the cause of a problem from afar, in one archive.
//!
//! [`kinds`] says which fields of which objects are kept; nothing else is. [`collect`] reads them page by page, and hands
//! each object to the [`archive`] as it comes, so that no list is held in memory.

pub mod archive;
pub mod collect;
pub mod contents;
pub mod kinds;
pub mod operator;

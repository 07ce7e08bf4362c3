//! The console: a page in the browser that shows what `get --watch` shows in a terminal.
//!
//! One task follows the cluster and turns its picture into messages ([`teller`]). The server ([`server`]) hands them to
//! each open page as server-sent events. What the page shows comes from [`crate::model`] alone: the page judges nothing.
//! [`gate`] decides which requests are answered.

pub mod cell;
pub mod feed;
pub mod files;
pub mod gate;
pub mod lag;
pub mod operator;
pub mod server;
pub mod teller;
pub mod timeline;
pub mod wire;

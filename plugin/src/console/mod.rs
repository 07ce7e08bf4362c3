//! The console: a page in the browser that shows what `get --watch` shows in a terminal.
//!
//! One task follows the cluster and turns its picture into messages ([`teller`]). They are handed to each open page as
//! server-sent events ([`pages`]). What the page shows comes from [`crate::model`] alone: the page judges nothing.
//! [`gate`] decides which requests are answered, and [`readers`] with whose rights: those of the user who has started the
//! console on a computer ([`server`]), or those of the token of each request in a cluster ([`cluster`]).

pub mod bearer;
pub mod cell;
pub mod cluster;
pub mod connections;
pub mod feed;
pub mod files;
pub mod gate;
pub mod lag;
pub mod operator;
pub mod pages;
pub mod places;
pub mod readers;
pub mod refused;
pub mod server;
pub mod teller;
pub mod timeline;
pub mod tokens;
pub mod wire;

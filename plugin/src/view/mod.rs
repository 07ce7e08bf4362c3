//! The live view on a terminal: rows that are scrolled, drawn from a picture that follows the cluster.
//!
//! A command says which rows there are ([`body::Body`]). [`page`] shows those that fit, and has no terminal. [`run`] draws
//! it again and again.

pub mod body;
pub mod page;
pub mod run;
pub mod scroll;

mod screen;

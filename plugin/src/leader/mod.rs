//! Asks the leader what it knows of an instance.
//!
//! The Lease of the election names the leader, its port and its certificate ([`crate::gather::election`]). The plugin makes
//! a token that is good for nothing else ([`token`]), reaches the Pod ([`way`]), and asks the one that has this certificate
//! ([`line`], [`ask`]). A page that asks again and again keeps the way and the token ([`standing`]). It never sends the user's own credentials. What prevents an answer is an [`unasked::Unasked`].

pub mod ask;
pub mod flags;
pub mod standing;
pub mod unasked;

mod line;
mod token;
mod way;

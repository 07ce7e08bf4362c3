//! The console: what it answers, and what a browser shows of it.

mod browser;
mod cluster;
mod http;
mod leader;
mod many;
mod page;
mod relay;
mod server;
mod shares;

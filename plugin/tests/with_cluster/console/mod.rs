//! The console: what it answers, and what a browser shows of it.

mod browser;
mod http;
mod page;
mod server;

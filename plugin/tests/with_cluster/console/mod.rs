//! The console: what it answers, and what a browser shows of it.

mod http;
mod server;

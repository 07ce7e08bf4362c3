//! Values and names that all layers use.

pub mod address;
pub mod endpoint;
pub mod failure;
pub mod instance;
pub mod key;
pub mod monotonic_time;
pub mod pace;
pub mod placement;
pub mod rate_limit;
pub mod reason;
pub mod server_message;
pub mod turns;
pub mod version;

//! What a Service publishes. Each test has its own namespace and operator, and instances that need
//! no further beat for a long time.

mod claims;
mod families;
mod neighbours;
mod pods;
mod pods_published;
mod repair;
mod scale;
mod services;
mod shapes;
mod words;

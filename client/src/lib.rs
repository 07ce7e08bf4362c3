//! Keeps a process published while it lives, and looks up the published instances of a service.
//!
//! A ServiceRegistration sets how long its instances may be silent (`ttl`) and how often they beat
//! (`interval`). A [`Service`] beats for one instance of the registration: it registers at its start, renews
//! its Lease again and again, and deregisters at its stop. An instance that falls silent without
//! deregistering is pruned when its ttl has passed.
//!
//! ```no_run
//! use std::time::Duration;
//! use beatkeeper_client::Service;
//!
//! # async fn reachable() -> Result<(), std::io::Error> { Ok(()) }
//! # async fn example() -> Result<(), beatkeeper_client::Error> {
//! let service = Service::builder("greeter")
//!     .version("1.4.2")
//!     .register_ttl(Duration::from_secs(30))
//!     .register_interval(Duration::from_secs(20))
//!     .register_check(|| async { reachable().await }) // an error: published as not ready
//!     .drain_delay(Duration::from_secs(5)) // at the stop, for routers to notice
//!     .build()?;
//! let running = service.start().await?;
//! // … serve …
//! running.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A client that balances its requests itself follows the published instances with [`Discovery`].
//!
//! # How it is built
//! [`heartbeat_loop`] is the engine: it claims the Lease of the instance, renews it, and gives it back. The decisions
//! are in modules without I/O: when to beat ([`schedule`], [`clock`], [`suspend_detector`]), what to do with a Lease
//! that already exists ([`lease`]), and what a failure means ([`failure`]). The connection to gateways is in
//! [`gateway`]. The engine reports what happens
//! as [`event`]s. The command `beatkeeper agent` runs the same loop.

#[cfg(doctest)]
#[doc = include_str!("../../docs/sdk.md")]
struct Page;

pub mod event;
pub mod failure;
pub mod gateway;
pub mod headers;
pub mod heartbeat_loop;
pub mod lease;
pub mod names;
pub mod panics;
pub mod publication;
pub mod reading;
pub mod schedule;
pub mod silence;
pub mod suspend;
pub mod timeout;
pub mod transport;

mod discovery;
mod error;
mod one_shot;
mod requests;
mod service;

pub use beatkeeper_api::heartbeat::Health;
pub use discovery::{Change, Discovery, Instance, Port};
pub use error::{BoxError, Error, StopError};
pub use one_shot::OneShot;
pub use requests::Connection;
pub use service::{Builder, INTERVAL_VARIABLE, Running, Service, Stats, TTL_VARIABLE};

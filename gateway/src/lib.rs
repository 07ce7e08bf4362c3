//! The network of a gateway (docs/adr/0036): it accepts the beats of instances over HTTP, and carries them to the
//! replicas of the operator over streams. `beatkeeper_core::carriers` decides; this crate reads and writes.
//!
//! * [`run`] is a gateway: one thread with three ports.
//! * [`streams::dial`] is the other end of a stream, in a replica of the operator.
//!
//! Not built: a proof in the gateway itself that the Pod of a token still lives (the leader judges it, G7), and client
//! certificates of instances.

pub mod admin;
pub mod clock;
pub mod counts;
pub mod gateway;
pub mod http;
pub mod identity;
pub mod metrics;
pub mod outbox;
pub mod places;
pub mod prove;
pub mod run;
pub mod settings;
pub mod streams;
pub mod tls;
pub mod validity;
pub mod wire;

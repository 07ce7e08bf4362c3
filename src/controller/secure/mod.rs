//! What is served over TLS, and only to users that may read it: the metrics (`--metrics-secure`), and what the operator
//! knows of an instance (`--explain-bind-address`).
//!
//! A request brings a bearer token. The API server says whose token it is, and whether that user may read what it asks for
//! ([`review`]). Its answers are remembered for a short time, and it is asked only so often, whatever requests come
//! ([`decisions`], [`guard`]). The certificate follows its files ([`certificate`]). Health probes are not served here:
//! the kubelet brings no token.

pub(super) mod certificate;
pub(super) mod guard;
pub(super) mod review;
pub(super) mod server;

mod decisions;

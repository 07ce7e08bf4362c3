//! Beats through a gateway: the connection that all instances of a process share.
//!
//! A gateway takes beats only. So everything else stays a request to the API server, and the heartbeat loop decides which
//! way a beat goes. The beats of all instances that are due go in one request ([`lane`]). The connection is made as that
//! to the API server ([`transport`](crate::transport)): all addresses of a name are tried, and the files of the CA and of
//! the token are read again when they change.

mod endpoints;
mod handle;
mod lane;
mod refusal;
mod settings;
#[cfg(test)]
mod tests;

pub use handle::{CarriedBeat, Gateway, GatewayError};
pub use refusal::Refusal;
pub use settings::{
    GATEWAY_CA_FILE_VARIABLE, GATEWAY_TOKEN_FILE_VARIABLE, GATEWAY_VARIABLE, GatewayNames,
    GatewaySettings, GatewayUrl, GatewayUrlError, TOKEN_FILE,
};

//! `/explain`: what this replica knows of one instance, for a user that may get its registration
//! (`--explain-bind-address`).
//!
//! Each scope can be asked ([`scopes`]). The server ([`server`]) asks the API server about each token, and shows a
//! certificate that is made at the start. The leader writes it into the election's Lease, where readers find it.

pub(super) mod scopes;
pub(super) mod server;

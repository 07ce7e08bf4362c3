//! Streams between the replicas of the operator and the gateways, over TLS with certificates at both ends.
//!
//! A replica dials ([`dial`]), and a gateway accepts ([`accept`]).

pub mod accept;
pub mod dial;
pub mod dialer;
pub mod ended;
pub mod pipe;

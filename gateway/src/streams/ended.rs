//! Why a stream has ended.

use std::{io, net::SocketAddr, time::Duration};

use crate::{
    tls::{TlsError, WrongPeer},
    wire::codec::{TooLongToSend, WireError},
};

/// Why a stream has ended, or was not opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum Ended {
    #[error("cannot connect to {address}: {cause}")]
    Connect { address: SocketAddr, cause: io::Error },
    #[error("the certificates of this end: {0}")]
    Certificates(#[from] TlsError),
    #[error("the TLS handshake: {0}")]
    Handshake(io::Error),
    #[error("the connection or its handshake was not done within {0:?}")]
    Slow(Duration),
    #[error("the other end is not who it has to be: {0}")]
    WrongPeer(#[from] WrongPeer),
    #[error("there are {0} streams already")]
    TooMany(usize),
    #[error("the first frame does not say who sends it")]
    NoName,
    #[error("a frame that has to be the first one came later")]
    NotFirst,
    #[error("dialled the gateway of Pod {expected}, and found that of Pod {found}")]
    OtherPod { expected: String, found: String },
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    TooLong(#[from] TooLongToSend),
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    #[error("the other end has read nothing for {0:?}")]
    Stalled(Duration),
    #[error("the connection: {0}")]
    Io(io::Error),
    #[error("the other end has closed it")]
    ClosedThere,
    #[error("this end has closed it")]
    ClosedHere,
}

impl Ended {
    /// The label of the metric.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Certificates(_) => "certificates",
            Self::Handshake(_) => "handshake",
            Self::Slow(_) => "slow_handshake",
            Self::WrongPeer(_) | Self::OtherPod { .. } => "wrong_peer",
            Self::TooMany(_) => "too_many",
            Self::NoName | Self::NotFirst | Self::Wire(_) | Self::TooLong(_) => "protocol",
            Self::Silent(_) => "silent",
            Self::Stalled(_) => "stalled",
            Self::Io(_) => "io",
            Self::ClosedThere => "closed_there",
            Self::ClosedHere => "closed_here",
        }
    }
}

//! Why a reader is not answered.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::places::Taken;
use crate::error::{Error, Problem};

/// Why a reader is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no token, or what cannot be one.
    #[error("This console has no rights of its own. It needs your token.")]
    NoToken,
    /// The API server does not accept the token.
    #[error("The API server does not accept the token. It may have expired.")]
    Token,
    /// A right is missing. The message of the API server names it.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such instance.
    #[error("There is no such instance.")]
    NoInstance,
    /// The namespace in the query cannot be one.
    #[error("This is not the name of a namespace.")]
    NoNamespace,
    /// As many readers as are allowed are there.
    #[error("This console has as many readers as it takes. Close a page, or try again later.")]
    Full,
    /// This reader has as many pages open as one may have.
    #[error(
        "You have {0} pages of this console open, which is all that one reader may have. Close one, or try again later."
    )]
    FullOfOne(usize),
    /// As much is read as is read at the same time.
    #[error("This console is busy. Ask again.")]
    Busy,
    /// As much is read for this reader as for one at the same time.
    #[error(
        "This console reads {0} answers for you already, as many as for one reader at the same time. Ask again."
    )]
    BusyForOne(usize),
    /// The API server gives no answer, or one that cannot be used.
    #[error("The API server does not answer.")]
    NoAnswer,
}

impl Refused {
    /// What an error of a read means to the reader.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Request { problem: Problem::Unknown, .. } => Self::Token,
            Error::Request { problem: problem @ Problem::Forbidden(_), .. } => {
                Self::Forbidden(problem.brief())
            }
            Error::NoRegistration { .. } | Error::NoInstance { .. } => Self::NoInstance,
            _ => Self::NoAnswer,
        }
    }

    /// What it means that there is no place.
    pub fn of_places(taken: Taken) -> Self {
        match taken {
            Taken::All => Self::Full,
            Taken::Own(each) => Self::FullOfOne(each),
        }
    }

    /// What it means that no further argument is read.
    pub fn of_arguments(taken: Taken) -> Self {
        match taken {
            Taken::All => Self::Busy,
            Taken::Own(each) => Self::BusyForOne(each),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::Token => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NoInstance => StatusCode::NOT_FOUND,
            Self::NoNamespace => StatusCode::BAD_REQUEST,
            Self::Full | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::FullOfOne(_) | Self::BusyForOne(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NoAnswer => StatusCode::BAD_GATEWAY,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = self.status();
        // A page stays open for long, and an argument is read within a moment.
        let retry_after = match &self {
            Self::Busy | Self::BusyForOne(_) => "1",
            _ => "10",
        };
        let text = (status, format!("{self}\n"));
        match status {
            StatusCode::UNAUTHORIZED => {
                ([(header::WWW_AUTHENTICATE, "Bearer")], text).into_response()
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                ([(header::RETRY_AFTER, retry_after)], text).into_response()
            }
            _ => text.into_response(),
        }
    }
}

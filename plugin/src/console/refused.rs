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

    fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::Token => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NoInstance => StatusCode::NOT_FOUND,
            Self::NoNamespace => StatusCode::BAD_REQUEST,
            Self::Full => StatusCode::SERVICE_UNAVAILABLE,
            Self::FullOfOne(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NoAnswer => StatusCode::BAD_GATEWAY,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = self.status();
        let text = (status, format!("{self}\n"));
        match status {
            StatusCode::UNAUTHORIZED => {
                ([(header::WWW_AUTHENTICATE, "Bearer")], text).into_response()
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                ([(header::RETRY_AFTER, "10")], text).into_response()
            }
            _ => text.into_response(),
        }
    }
}

//! What the verification of tokens needs of a cluster, and what it finds.

use beatkeeper_core::carriers::rights::Identity;
use futures::future::LocalBoxFuture;

/// Who a token is of, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who.
    pub identity: Identity,
    /// The second since 1970 from which on the token is worth nothing.
    pub expires: i64,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum NotVerified {
    #[error(
        "needs a token: send the header Authorization: Bearer TOKEN, with a token for the audience {audience}"
    )]
    NoToken { audience: String },
    #[error("the token is longer than {0} bytes")]
    TooLong(usize),
    #[error("the token is no JSON Web Token of a ServiceAccount")]
    NoServiceAccountToken,
    #[error(
        "the token is signed with {0}, which is not accepted: the cluster signs with RS256 or ES256"
    )]
    Algorithm(String),
    #[error("the token names no key")]
    NoKey,
    #[error("the cluster has not published the key of the token")]
    UnknownKey,
    #[error("the signature of the token is wrong")]
    Signature,
    #[error(
        "the token is of the issuer {found}, and this cluster is {expected}: if both are issuers of this cluster, start \
         the gateway with --token-issuer {found}"
    )]
    Issuer { found: String, expected: String },
    #[error("the token is for the audience {found}: request one for the audience {expected}")]
    Audience { found: String, expected: String },
    #[error("the token has expired: read the file of the token again")]
    Expired,
    #[error("the token is not valid yet: the clock of this gateway or of the API server is wrong")]
    NotYet,
    #[error(
        "the API server does not accept the token: it may have expired, or its Pod may be gone"
    )]
    Reviewed,
    #[error("the name of the user or of its Pod is too long")]
    Name,
    #[error("the token cannot be checked: {0}; try again")]
    CannotCheck(CannotCheck),
}

/// Why a token cannot be checked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum CannotCheck {
    #[error("the API server does not answer")]
    ApiServer,
    #[error(
        "the keys of the cluster were read a moment ago, and the key of the token was not among them"
    )]
    KeysAreFresh,
    #[error("too many tokens wait for their review")]
    TooMany,
}

/// A question to the API server has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskFailed {
    /// The request has failed.
    #[error("the API server: {0}")]
    Kube(#[from] kube::Error),
    /// A path or a body cannot be made into a request.
    #[error("cannot make the request: {0}")]
    Request(#[from] ::http::Error),
    /// The answer did not come in time.
    #[error("the API server has not answered in time")]
    Late,
    /// The answer is not what it has to be.
    #[error("the answer of the API server cannot be read: {0}")]
    Answer(#[from] serde_json::Error),
}

/// Where the published keys come from.
pub trait KeySource {
    /// The JSON Web Key Set, as it is now.
    fn keys(&self) -> LocalBoxFuture<'_, Result<String, AskFailed>>;

    /// The issuer that the discovery document names now.
    fn issuer(&self) -> LocalBoxFuture<'_, Result<String, AskFailed>>;
}

/// What reviews tokens, if the keys are not to be used.
pub trait TokenReviewer {
    /// Who a token is of, for one of these audiences; `None` if it is worth nothing.
    fn review<'a>(
        &'a self,
        token: &'a str,
        audience: &'a str,
    ) -> LocalBoxFuture<'a, Result<Option<Identity>, AskFailed>>;
}

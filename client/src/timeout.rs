//! Limits the time of a call to the API server.

use std::time::Duration;

/// A call that exceeded its time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {}", beatkeeper_api::duration::format(*.0))]
pub struct TimedOut(pub Duration);

/// Limits the time of a whole call, including the body. Not for watches.
///
/// # Errors
/// [`TimedOut`]. It is then unknown whether the API server has executed the request.
pub async fn within<T>(
    limit: Duration,
    call: impl Future<Output = T> + Send,
) -> Result<T, TimedOut> {
    tokio::time::timeout(limit, call).await.map_err(|_| TimedOut(limit))
}

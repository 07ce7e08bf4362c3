//! A call to the API server with a timeout.

use std::time::Duration;

use crate::{
    controller::error::{ApiError, Cause},
    kube_client,
};

/// Runs a call with this timeout. An error names the call.
pub(crate) async fn call_within<T>(
    limit: Duration,
    doing: impl FnOnce() -> String,
    call: impl Future<Output = Result<T, kube::Error>> + Send,
) -> Result<T, ApiError> {
    match kube_client::within(limit, call).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(ApiError { doing: doing(), cause: Cause::Kube(Box::new(error)) }),
        Err(late) => Err(ApiError { doing: doing(), cause: late.into() }),
    }
}

//! Waits when the API server reports that it is overloaded.
//!
//! A 429 comes before anything is done with the request, so the same request can be sent again. The same holds for a
//! 503 with a Retry-After header. kube has a retry policy for this, but it has three problems. It sends all requests
//! again at the very second that the server named. It waits for as long as the server says, even if the caller needs an
//! answer sooner. It also repeats writes after errors that leave open whether the write was done.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use beatkeeper_client::headers::retry_after;
use http::{HeaderMap, Request, Response, StatusCode};
use jiff::Timestamp;
use kube::client::Body;
use tower::{BoxError, retry::Policy};

/// The pause if the answer does not say how long to wait. Kubernetes uses 1 s, too.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);
/// The minimum pause, even if the answer says "at once".
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The maximum pause, even if the answer says "never" or names a year far away. It prevents an overflow of times.
const LONGEST_PAUSE: Duration = Duration::from_secs(86_400);
/// Requests that were refused together are spread over this fraction of their pause.
const JITTER: f64 = 0.25;

/// An extension of a request. A caller adds it to learn how long to wait, instead of having the request sent again.
#[derive(Debug, Clone, Default)]
pub struct RequestedPause(Arc<OnceLock<Duration>>);

impl RequestedPause {
    /// How long the server asked the caller to wait, if it did.
    pub fn to_wait(&self) -> Option<Duration> {
        self.0.get().copied()
    }
}

/// How long a request may still wait in total. Each request begins with the full time.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    left: Duration,
    wall: fn() -> Timestamp,
}

impl Patience {
    /// Allows this total time. If the server asks for a longer pause, its answer is passed on to the caller. Dates in
    /// answers are compared with this wall clock.
    pub(super) fn of(longest: Duration, wall: fn() -> Timestamp) -> Self {
        Self { left: longest, wall }
    }

    /// Subtracts a pause from the remaining time. None if too little time remains.
    fn take(&mut self, pause: Duration) -> Option<Duration> {
        self.left = self.left.checked_sub(pause)?;
        Some(pause)
    }
}

impl<B> Policy<Request<Body>, Response<B>, BoxError> for Patience {
    type Future = tokio::time::Sleep;

    fn retry(
        &mut self,
        request: &mut Request<Body>,
        result: &mut Result<Response<B>, BoxError>,
    ) -> Option<Self::Future> {
        let response = result.as_ref().ok()?;
        let told = told_to_wait(response.status(), response.headers(), (self.wall)())?;
        if let Some(caller) = request.extensions().get::<RequestedPause>() {
            // The value is set only once, because the request is not sent again.
            let _ = caller.0.set(told);
            return None;
        }
        let pause = self.take(told.mul_f64(1.0 + fastrand::f64() * JITTER))?;
        let (method, path) = (request.method(), request.uri().path());
        tracing::debug!(%method, path, ?pause, "the API server has too much to do: waiting");
        Some(tokio::time::sleep(pause))
    }

    /// Returns None if the body is a stream. Such a request is never sent again.
    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        let mut copy = Request::new(request.body().try_clone()?);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        Some(copy)
    }
}

/// How long the server asks the caller to wait, if it does.
fn told_to_wait(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let told = retry_after(headers, now);
    let told = told.map(|told| told.clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(told.unwrap_or(DEFAULT_PAUSE)),
        StatusCode::SERVICE_UNAVAILABLE => told,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::RETRY_AFTER;

    fn told(status: u16, retry_after: Option<&str>) -> Option<u128> {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, value.parse().expect("a header"));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        told_to_wait(status, &headers, now()).map(|pause| pause.as_millis())
    }

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().expect("a time")
    }

    #[test]
    fn only_requests_that_were_not_processed_are_repeated() {
        assert_eq!(told(429, Some("2")), Some(2000));
        assert_eq!(told(429, None), Some(1000));
        assert_eq!(told(429, Some("Wed, 21 Oct 2020 07:28:00 GMT")), Some(100), "it is over");
        assert_eq!(told(429, Some("Sun, 22 Nov 2026 10:00:07 GMT")), Some(7000));
        assert_eq!(told(503, Some("Wed, 01 Dec 9999 12:00:00 GMT")), Some(86_400_000));
        assert_eq!(told(429, Some("soon")), Some(1000));
        assert_eq!(told(429, Some("18446744073709551615")), Some(86_400_000));
        assert_eq!(told(429, Some("0")), Some(100), "never in a tight loop");
        assert_eq!(told(503, Some("1")), Some(1000));
        assert_eq!(told(503, None), None);
        for status in [200, 403, 404, 409, 422, 500, 504] {
            assert_eq!(told(status, Some("1")), None, "{status}");
        }
    }

    #[test]
    fn a_pause_for_ever_overflows_nothing() {
        let mut request = Request::new(Body::empty());
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        response.headers_mut().insert(RETRY_AFTER, u64::MAX.into());
        let again =
            Patience::of(Duration::from_secs(4), now).retry(&mut request, &mut Ok(response));
        assert!(again.is_none(), "the caller is told at once");
    }

    #[test]
    fn a_caller_without_patience_gets_the_429_and_no_repetition() {
        let requested = RequestedPause::default();
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(requested.clone());
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        response.headers_mut().insert(RETRY_AFTER, 32.into());
        let again = Patience::of(Duration::MAX, now).retry(&mut request, &mut Ok(response));
        assert!(again.is_none());
        assert_eq!(requested.to_wait(), Some(Duration::from_secs(32)));
    }

    #[test]
    fn patience_ends_before_the_caller_would_give_up() {
        let mut patience = Patience::of(Duration::from_secs(4), now);
        let second = Duration::from_secs(1);
        assert_eq!(patience.take(3 * second), Some(3 * second));
        assert_eq!(patience.take(2 * second), None, "one second is left");
        assert_eq!(patience.take(second), Some(second));
        assert_eq!(patience.take(SHORTEST_PAUSE), None);
    }
}

//! Calls to the API server: their timeouts, and whether this process may write.

use std::{sync::Arc, time::Duration};

use kube::Client;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use crate::{
    controller::{
        call::call_within,
        error::{ApiError, Cause},
        leader::leadership::Leadership,
    },
    kube_client::gate::Gate,
};

/// Timeout of a call to the API server, except watches. It is far above the duration of a healthy call (p99 12
/// ms) and far below any useful ttl.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The API server, as a task may use it.
#[derive(Clone)]
pub(crate) struct ApiServer {
    pub(crate) client: Client,
    /// Says whether this process may write.
    pub(crate) leadership: Leadership,
    /// Limits how many tasks write a status, a condition or events at the same time.
    background: Arc<Semaphore>,
    stop: CancellationToken,
}

impl ApiServer {
    /// `parallel_calls` is the number of places in the gate that the client's calls pass.
    pub(crate) fn new(
        client: Client,
        leadership: Leadership,
        parallel_calls: u16,
        stop: CancellationToken,
    ) -> Self {
        let background = Arc::new(Semaphore::new(Gate::background(parallel_calls.into())));
        Self { client, leadership, background, stop }
    }

    /// Whether this process leads, so that it may write.
    pub(crate) fn may_write(&self) -> bool {
        self.leadership.holds()
    }

    /// Waits for a permit to write a status, a condition or an event. There are as many permits as the gate has
    /// places for background calls. The timeout of the call does not run during this wait, since a thousand
    /// registrations may wait at once. Returns None once the controller is to stop.
    pub(crate) async fn background_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.stop.run_until_cancelled(self.background.acquire()).await?.ok()
    }

    /// Runs a call that reads, with a timeout of [`CALL_TIMEOUT`]. An error names the call.
    pub(crate) async fn read<T>(
        &self,
        doing: impl FnOnce() -> String,
        call: impl Future<Output = Result<T, kube::Error>> + Send,
    ) -> Result<T, ApiError> {
        call_within(CALL_TIMEOUT, doing, call).await
    }

    /// Runs a call that writes, with a timeout of at most [`CALL_TIMEOUT`]. An error names the call. The call is
    /// sent only while this process leads, and it is cancelled when the leadership ends.
    pub(crate) async fn write<T>(
        &self,
        doing: impl FnOnce() -> String,
        call: impl Future<Output = Result<T, kube::Error>> + Send,
    ) -> Result<T, ApiError> {
        match self.leadership.left() {
            Some(left) => call_within(left.min(CALL_TIMEOUT), doing, call).await,
            None => Err(ApiError { doing: doing(), cause: Cause::NotLeading }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        controller::{
            clock::Clock,
            leader::leadership::{Standing, Term},
        },
        kube_client,
    };
    use tokio::sync::watch;

    fn leading_for(left: Duration) -> (ApiServer, watch::Sender<Standing>) {
        // No request is sent to this address.
        let config = kube::Config::new("http://127.0.0.1:1".parse().expect("a URL"));
        let options = kube_client::Options::of("test", || jiff::Timestamp::UNIX_EPOCH);
        let client = kube_client::connect(config, &options).expect("one");
        let clock = Clock::start();
        let (sender, receiver) = watch::channel(Standing::default());
        let leadership = Leadership::elected(clock, receiver);
        let valid_until = clock.now() + left;
        sender.send_replace(Standing { term: Some(Term(1)), valid_until, ..Standing::default() });
        (ApiServer::new(client, leadership, 8, CancellationToken::new()), sender)
    }

    fn doing() -> String {
        "write".to_owned()
    }

    #[tokio::test]
    async fn a_write_is_sent_while_the_process_leads() {
        let (api, _standing) = leading_for(Duration::from_secs(60));
        assert_eq!(api.write(doing, async { Ok(7) }).await.ok(), Some(7));
    }

    #[tokio::test]
    async fn a_process_that_does_not_lead_reads_and_begins_no_write() {
        let (api, _standing) = leading_for(Duration::ZERO);
        let mut begun = false;
        let write = async {
            begun = true;
            Ok(())
        };
        let error = api.write(doing, write).await.expect_err("refused");
        assert_eq!(error.to_string(), "cannot write: this replica does not lead");
        assert!(!begun);
        assert_eq!(api.read(doing, async { Ok(7) }).await.ok(), Some(7));
    }

    #[tokio::test]
    async fn a_write_without_an_answer_is_cancelled_when_the_leadership_ends() {
        let (api, _standing) = leading_for(Duration::from_millis(300));
        let write = std::future::pending::<Result<(), kube::Error>>();
        let error = api.write(doing, write).await.expect_err("no answer");
        assert!(matches!(error.cause, Cause::TimedOut(_)), "{error}");
        assert!(!api.may_write());
    }
}

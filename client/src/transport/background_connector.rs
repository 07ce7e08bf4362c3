//! Connections whose setup outlives the request that asked for them.
//!
//! A beat is given up after a fraction of its slack. If its connection were given up with it, a connection
//! with a longer setup (a far proxy, a server under load, a dead address before a good one) would never be
//! made: each beat would begin anew. So connections are made in tasks of their own. A connection that no
//! request waits for any more serves the next request.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::Uri;
use tokio::{
    sync::oneshot,
    task::AbortHandle,
    time::{Instant, timeout},
};
use tower::{BoxError, Service};

/// The time limit of an attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
/// For this long a request joins an attempt that is under way. After that the attempt may hang, and another
/// one begins in parallel.
const JOINABLE_FOR: Duration = Duration::from_secs(1);
/// The maximum number of attempts beyond the number of waiting requests: that many may hang. The oldest
/// attempt is dropped for a new one, because the kernel retransmits lost packets more and more rarely.
const HANGING_MAX: usize = 9;
/// The other end may have closed a connection that was unused for longer than this.
const SPARE_MAX_AGE: Duration = Duration::from_secs(10);

/// Makes one connection.
type Make<C> = Arc<dyn Fn() -> BoxFuture<'static, Result<C, BoxError>> + Send + Sync>;

/// A connector for one destination. Clones share their attempts.
pub(super) struct BackgroundConnector<C> {
    make: Make<C>,
    state: Arc<Mutex<State<C>>>,
}

struct State<C> {
    waiting: VecDeque<oneshot::Sender<Result<C, BoxError>>>,
    /// In the order in which the attempts began.
    attempts: VecDeque<Attempt>,
    begun: u64,
    /// Connections that were completed when no request waited for them any more.
    spare: Vec<(Instant, C)>,
}

struct Attempt {
    number: u64,
    since: Instant,
    task: Option<AbortHandle>,
}

impl<C> Clone for BackgroundConnector<C> {
    fn clone(&self) -> Self {
        Self { make: Arc::clone(&self.make), state: Arc::clone(&self.state) }
    }
}

impl<C: Send + 'static> BackgroundConnector<C> {
    pub(super) fn new(make: Make<C>) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            attempts: VecDeque::new(),
            begun: 0,
            spare: Vec::new(),
        };
        Self { make, state: Arc::new(Mutex::new(state)) }
    }

    fn connect(&self) -> BoxFuture<'static, Result<C, BoxError>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.spare.retain(|(since, _)| since.elapsed() < SPARE_MAX_AGE);
        if let Some((_, connection)) = state.spare.pop() {
            return std::future::ready(Ok(connection)).boxed();
        }
        state.waiting.retain(|one| !one.is_closed());
        state.waiting.push_back(sender);
        if let Some(number) = state.begin() {
            let attempt = timeout(ATTEMPT_TIMEOUT, (self.make)());
            let shared = Arc::clone(&self.state);
            let task = tokio::spawn(async move {
                let made = attempt.await.unwrap_or_else(|_| Err("no connection in time".into()));
                shared.lock().unwrap_or_else(PoisonError::into_inner).deliver(number, made);
            });
            // The end of the task waits for the lock that is held here.
            if let Some(attempt) = state.attempts.back_mut() {
                attempt.task = Some(task.abort_handle());
            }
        }
        drop(state);
        async move { receiver.await.unwrap_or_else(|_| Err("the runtime ends".into())) }.boxed()
    }
}

impl<C> State<C> {
    /// Returns the number of a new attempt if one is needed.
    fn begin(&mut self) -> Option<u64> {
        let waiting = self.waiting.len();
        if self.joinable() >= waiting {
            return None;
        }
        if self.attempts.len() >= waiting + HANGING_MAX
            && let Some(Attempt { task: Some(oldest), .. }) = self.attempts.pop_front()
        {
            oldest.abort();
        }
        self.begun += 1;
        let (number, since) = (self.begun, Instant::now());
        self.attempts.push_back(Attempt { number, since, task: None });
        Some(number)
    }

    fn joinable(&self) -> usize {
        self.attempts.iter().filter(|one| one.since.elapsed() < JOINABLE_FOR).count()
    }

    fn deliver(&mut self, number: u64, made: Result<C, BoxError>) {
        self.attempts.retain(|attempt| attempt.number != number);
        match made {
            Ok(mut connection) => {
                while let Some(one) = self.waiting.pop_front() {
                    match one.send(Ok(connection)) {
                        Err(Ok(back)) => connection = back,
                        _ => return,
                    }
                }
                self.spare.push((Instant::now(), connection));
            }
            Err(error) => {
                self.waiting.retain(|one| !one.is_closed());
                // Another attempt may still succeed for the waiting requests. Attempts that seem to hang do
                // not count.
                if self.waiting.len() > self.joinable()
                    && let Some(one) = self.waiting.pop_front()
                {
                    let _ = one.send(Err(error));
                }
            }
        }
    }
}

impl<C: Send + 'static> Service<Uri> for BackgroundConnector<C> {
    type Response = C;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<C, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        self.connect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::time::sleep;

    use super::*;

    /// A connector whose connections are the numbers of their attempts. Each attempt takes the time given in
    /// `takes`.
    fn slow(takes: &'static [u64]) -> (BackgroundConnector<usize>, Arc<AtomicUsize>) {
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        let make: Make<usize> = Arc::new(move || {
            let n = count.fetch_add(1, Relaxed);
            async move {
                sleep(Duration::from_millis(takes[n])).await;
                Ok(n)
            }
            .boxed()
        });
        (BackgroundConnector::new(make), begun)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_takes_longer_than_a_request_serves_the_next_one() {
        let (connector, begun) = slow(&[700]);
        let request = Duration::from_millis(250);
        for _ in 0..2 {
            assert!(timeout(request, connector.connect()).await.is_err());
        }
        let made = timeout(request, connector.connect()).await.expect("in time");
        assert_eq!((made.expect("a connection"), begun.load(Relaxed)), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_waiting_request_is_kept_while_it_is_fresh() {
        let (connector, begun) = slow(&[700, 100]);
        assert!(timeout(Duration::from_millis(250), connector.connect()).await.is_err());
        sleep(Duration::from_secs(5)).await;
        assert_eq!(connector.connect().await.expect("kept"), 0);
        assert_eq!(connector.connect().await.expect("a new one"), 1);
        assert_eq!(begun.load(Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_hangs_is_not_waited_for() {
        let (connector, _) = slow(&[3_600_000, 100]);
        assert!(timeout(Duration::from_secs(2), connector.connect()).await.is_err());
        let made = timeout(Duration::from_secs(1), connector.connect()).await.expect("in time");
        assert_eq!(made.expect("a connection"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_way_that_is_open_again_is_found_however_many_attempts_hang() {
        // The first twenty attempts get no answer.
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        let connector: BackgroundConnector<usize> = BackgroundConnector::new(Arc::new(move || {
            let n = count.fetch_add(1, Relaxed);
            async move { if n < 20 { std::future::pending().await } else { Ok(n) } }.boxed()
        }));
        let request = Duration::from_secs(1);
        for _ in 0..20 {
            assert!(timeout(request, connector.connect()).await.is_err());
        }
        let made = timeout(request, connector.connect()).await.expect("in time");
        assert_eq!(made.expect("a connection"), 20);
        let hanging = connector.state.lock().expect("no panic").attempts.len();
        assert!(hanging <= 1 + HANGING_MAX, "{hanging} hang");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_side_by_side_have_a_connection_each() {
        let (connector, begun) = slow(&[100, 100, 100]);
        let made = futures::future::join_all((0..3).map(|_| connector.connect())).await;
        let mut made: Vec<usize> = made.into_iter().map(|one| one.expect("one")).collect();
        made.sort_unstable();
        assert_eq!((made, begun.load(Relaxed)), (vec![0, 1, 2], 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_at_once_although_others_hang() {
        let begun = Arc::new(AtomicUsize::new(0));
        let connector: BackgroundConnector<()> = BackgroundConnector::new(Arc::new(move || {
            let hangs = begun.fetch_add(1, Relaxed) == 0;
            async move { if hangs { std::future::pending().await } else { Err("refused".into()) } }
                .boxed()
        }));
        assert!(timeout(2 * JOINABLE_FOR, connector.connect()).await.is_err());
        let failed = timeout(JOINABLE_FOR, connector.connect()).await.expect("at once");
        assert_eq!(failed.expect_err("refused").to_string(), "refused");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_at_once() {
        let connector: BackgroundConnector<()> = BackgroundConnector::new(Arc::new(|| {
            std::future::ready(Err("refused".into())).boxed()
        }));
        assert_eq!(connector.connect().await.expect_err("refused").to_string(), "refused");
    }
}

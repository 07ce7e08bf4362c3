//! Limits how many calls are under way at once, and which of them go first.
//!
//! Every call of the operator passes through the gate, wherever it is made. Calls that are needed to prune dead
//! instances (live reads, and the writes that publish) may use all places. Status, events and the sweep share a few of
//! the places. So even if those calls are answered slowly, the others find a place.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use kube::client::Body;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tower::{BoxError, Layer, Service};

use super::request::{ApiRequest, Verb};

/// Background calls may use one place out of this many.
const BACKGROUND_SHARE: usize = 16;

/// How urgent a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// An instance may be waiting to be pruned or published.
    Prompt,
    /// The call reports or cleans up: status, events, the sweep.
    Background,
}

impl Lane {
    /// All lanes, for example to count calls by lane.
    pub const ALL: [Self; 2] = [Self::Prompt, Self::Background];

    /// The name of the lane in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Background => "background",
        }
    }

    /// The lane of a request. None for a watch: it needs no place, because it stays open and there are few watches.
    fn of(request: ApiRequest) -> Option<Self> {
        let ApiRequest { verb, kind, status } = request;
        match (verb, kind) {
            (Verb::Watch, _) => None,
            (_, "Event") | (Verb::Delete, "Lease") => Some(Self::Background),
            _ if status => Some(Self::Background),
            _ => Some(Self::Prompt),
        }
    }
}

/// The result of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The call succeeded.
    Ok,
    /// 404 or 409: the object is not in the state that the call was planned from.
    Conflict,
    /// 429: the API server is overloaded.
    Throttled,
    /// Any other 4xx.
    Refused,
    /// No answer arrived in time, so it is unknown whether the request was carried out.
    Timeout,
    /// A server error, or no connection.
    Error,
}

impl Outcome {
    /// The name of the outcome in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Conflict => "conflict",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Error => "error",
        }
    }

    /// Whether the API server is known to have answered the call, even if it refused it. A server error does not count.
    pub fn is_answer(self) -> bool {
        match self {
            Self::Ok | Self::Conflict | Self::Throttled | Self::Refused => true,
            Self::Timeout | Self::Error => false,
        }
    }

    fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            404 | 409 => Self::Conflict,
            429 => Self::Throttled,
            400..=499 => Self::Refused,
            500.. => Self::Error,
            _ => Self::Ok,
        }
    }

    fn of_error(error: &BoxError) -> Self {
        if error.is::<tower::timeout::error::Elapsed>() { Self::Timeout } else { Self::Error }
    }
}

/// Receives the events of calls, for example to count them. It is called for each try.
pub trait Observer: Send + Sync + 'static {
    /// A call got its place, after waiting for `waited`.
    fn admitted(&self, lane: Lane, waited: Duration);
    /// A call has ended after `took`: the head of its answer arrived, or the call was abandoned.
    fn ended(&self, request: ApiRequest, outcome: Outcome, took: Duration);
}

/// The gate, as a layer of the client.
#[derive(Clone)]
pub struct Gate {
    all: Arc<Semaphore>,
    background: Arc<Semaphore>,
    observer: Arc<dyn Observer>,
}

impl Gate {
    /// Makes a gate that lets this many calls through at once, but at least two.
    pub fn new(places: usize, observer: Arc<dyn Observer>) -> Self {
        let places = places.max(2);
        Self {
            all: Arc::new(Semaphore::new(places)),
            background: Arc::new(Semaphore::new(Self::background(places))),
            observer,
        }
    }

    /// How many of these places background calls may use. It is at least two, so that one unanswered call does not
    /// block the other background calls. But it is never all of the places, so of two places it is one.
    pub fn background(places: usize) -> usize {
        (places / BACKGROUND_SHARE).max(2).min(places.saturating_sub(1)).max(1)
    }

    /// Waits for a place. A background call first waits for one of the places of its lane. So at most that many
    /// background calls can be ahead of a prompt call.
    async fn admit(&self, lane: Lane) -> Place {
        let since = Instant::now();
        // Neither semaphore is ever closed.
        let share = match lane {
            Lane::Prompt => None,
            Lane::Background => self.background.clone().acquire_owned().await.ok(),
        };
        let place = self.all.clone().acquire_owned().await.ok();
        self.observer.admitted(lane, since.elapsed());
        Place { _place: place, _share: share }
    }
}

/// A place in the gate. Dropping it frees the place.
struct Place {
    _place: Option<OwnedSemaphorePermit>,
    _share: Option<OwnedSemaphorePermit>,
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

/// The service behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S, B> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    /// Does not wait for a place, because that would also delay the requests that come after this one.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let gate = self.gate.clone();
        // Use the instance that `poll_ready` was called on, because only that one is ready.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let asked = ApiRequest::read(request.method(), request.uri());
            let _place = match Lane::of(asked) {
                Some(lane) => Some(gate.admit(lane).await),
                None => None,
            };
            let underway = Underway::begin(gate.observer.clone(), asked);
            let result = inner.call(request).await;
            underway.end(match &result {
                Ok(response) => Outcome::of_status(response.status()),
                Err(error) => Outcome::of_error(error),
            });
            result
        })
    }
}

/// A call that is under way. It is dropped if the caller stops waiting for it.
struct Underway {
    observer: Arc<dyn Observer>,
    request: ApiRequest,
    since: Instant,
    outcome: Outcome,
}

impl Underway {
    fn begin(observer: Arc<dyn Observer>, request: ApiRequest) -> Self {
        Self { observer, request, since: Instant::now(), outcome: Outcome::Timeout }
    }

    fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.observer.ended(self.request, self.outcome, self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::sync::oneshot;

    /// Records the events that it receives.
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Observer for Notes {
        fn admitted(&self, lane: Lane, _waited: Duration) {
            self.0.lock().expect("notes").push(format!("admitted {}", lane.as_str()));
        }

        fn ended(&self, request: ApiRequest, outcome: Outcome, _took: Duration) {
            let told = format!("{} {} {}", request.verb.as_str(), request.kind, outcome.as_str());
            self.0.lock().expect("notes").push(told);
        }
    }

    /// A server that answers each request on command, with the given answer.
    type Waiting = Arc<Mutex<Vec<(String, oneshot::Sender<Result<u16, BoxError>>)>>>;

    fn request(method: &str, path: &str) -> Request<Body> {
        Request::builder().method(method).uri(path).body(Body::empty()).expect("a request")
    }

    fn server(gate: &Gate) -> (impl Fn(Request<Body>) -> tokio::task::JoinHandle<bool>, Waiting) {
        let waiting = Waiting::default();
        let arrived = waiting.clone();
        let inner = tower::service_fn(move |request: Request<Body>| {
            let (answer, answered) = oneshot::channel();
            arrived.lock().expect("requests").push((request.uri().path().to_owned(), answer));
            async move {
                let code = answered.await.expect("an answer")?;
                Ok(Response::builder().status(code).body(()).expect("a response"))
            }
        });
        let gated = gate.layer(inner);
        let send = move |request| {
            let mut gated = gated.clone();
            tokio::spawn(async move { gated.call(request).await.is_ok() })
        };
        (send, waiting)
    }

    /// Lets all tasks run until none can make progress.
    async fn settle() {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    fn paths(waiting: &Waiting) -> Vec<String> {
        waiting.lock().expect("requests").iter().map(|(path, _)| path.clone()).collect()
    }

    fn answer_first(waiting: &Waiting) {
        let (_, answer) = waiting.lock().expect("requests").remove(0);
        answer.send(Ok(200)).expect("a caller waits");
    }

    const STATUS: &str = "/apis/beatkeeper.dev/v1alpha1/namespaces/a/serviceregistrations/b/status";
    const EVENT: &str = "/apis/events.k8s.io/v1/namespaces/a/events";
    const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/a/leases/b.c";
    const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices/d";

    #[tokio::test]
    async fn status_events_and_the_sweep_leave_room_for_reads_and_prunes() {
        let gate = Gate::new(32, Arc::new(Notes::default()));
        let (send, waiting) = server(&gate);
        for _ in 0..10 {
            send(request("PATCH", STATUS));
            send(request("POST", EVENT));
            send(request("DELETE", LEASE));
        }
        settle().await;
        assert_eq!(paths(&waiting), [STATUS, EVENT], "a sixteenth of the places");
        for _ in 0..31 {
            send(request("GET", LEASE));
        }
        send(request("PUT", SLICE));
        settle().await;
        assert_eq!(paths(&waiting)[..2], [STATUS, EVENT]);
        assert_eq!(paths(&waiting)[2..], [LEASE; 30], "all others");
        answer_first(&waiting);
        settle().await;
        assert_eq!(paths(&waiting).len(), 32, "its place went on");
        assert_eq!(paths(&waiting)[31], LEASE, "to a read, which waited before the next report");
    }

    #[tokio::test]
    async fn a_watch_needs_no_place_and_takes_none() {
        let gate = Gate::new(2, Arc::new(Notes::default()));
        let (send, waiting) = server(&gate);
        for _ in 0..5 {
            send(request("GET", "/api/v1/pods?watch=true"));
        }
        send(request("GET", LEASE));
        send(request("GET", LEASE));
        send(request("GET", LEASE));
        settle().await;
        assert_eq!(paths(&waiting).len(), 7);
    }

    #[tokio::test]
    async fn an_abandoned_request_frees_its_place_and_counts_as_a_timeout() {
        let notes = Arc::new(Notes::default());
        let gate = Gate::new(2, notes.clone());
        let (send, waiting) = server(&gate);
        let first = send(request("PUT", SLICE));
        send(request("PUT", SLICE));
        send(request("GET", LEASE));
        settle().await;
        assert_eq!(paths(&waiting), [SLICE, SLICE]);
        first.abort();
        settle().await;
        assert_eq!(paths(&waiting), [SLICE, SLICE, LEASE]);
        assert_eq!(notes.0.lock().expect("notes").last().expect("a note"), "admitted prompt");
        let told = notes.0.lock().expect("notes").clone();
        assert!(told.contains(&"update EndpointSlice timeout".to_owned()), "{told:?}");
    }

    #[tokio::test]
    async fn each_end_of_a_call_is_told_by_its_name() {
        let notes = Arc::new(Notes::default());
        let gate = Gate::new(2, notes.clone());
        let (send, waiting) = server(&gate);
        let elapsed = || Box::new(tower::timeout::error::Elapsed::new()) as BoxError;
        let ends: [(Result<u16, BoxError>, &str); 10] = [
            (Ok(200), "ok"),
            (Ok(201), "ok"),
            (Ok(404), "conflict"),
            (Ok(409), "conflict"),
            (Ok(429), "throttled"),
            (Ok(403), "refused"),
            (Ok(422), "refused"),
            (Ok(503), "error"),
            (Err("no connection".into()), "error"),
            (Err(elapsed()), "timeout"),
        ];
        for (end, told) in ends {
            let call = send(request("PUT", SLICE));
            settle().await;
            let (_, answer) = waiting.lock().expect("requests").remove(0);
            answer.send(end).expect("a caller waits");
            call.await.expect("an end");
            let last = notes.0.lock().expect("notes").last().cloned();
            assert_eq!(last, Some(format!("update EndpointSlice {told}")));
        }
    }
}

//! The network between the processes and the API server: a service that receives HTTP requests and answers
//! them, each after a random delay.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
    hash::{DefaultHasher, Hash, Hasher},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::{sync::oneshot, time::Instant};
use tower::{BoxError, Service};

use crate::{
    random::Random,
    store::{Change, Key, Store, Stored, merge},
    wire::{Ask, Asked, Refusal, Selector, kind},
};

pub struct World {
    pub store: Store,
    pub random: Random,
    pub start: Instant,
    watches: Vec<Arc<Watch>>,
    pub weather: Weather,
    pub requests: u64,
    by_caller: BTreeMap<usize, u64>,
    pub trace: Option<String>,
}

#[derive(Debug, Clone, Copy)]
pub struct Weather {
    pub latency: u64,
    pub unanswered: u64,
    pub lag: u64,
}

pub const FAIR: Weather = Weather { latency: 3, unanswered: 0, lag: 3 };

/// A watch of one process. Its events arrive in order.
pub struct Watch {
    caller: usize,
    resource: &'static str,
    namespace: Option<String>,
    selector: Selector,
    state: Mutex<Arriving>,
}

#[derive(Default)]
struct Arriving {
    /// The position in the log.
    cursor: usize,
    /// The events on their way: the moment of arrival, and the position up to which the log has arrived then.
    underway: VecDeque<(Instant, usize)>,
    waker: Option<Waker>,
    ended: bool,
}

#[derive(Clone)]
pub struct Network(Arc<Mutex<World>>);

impl Network {
    pub fn new(seed: u64, traced: bool) -> Self {
        Self(Arc::new(Mutex::new(World {
            store: Store::default(),
            random: Random::new(seed),
            start: Instant::now(),
            watches: Vec::new(),
            weather: FAIR,
            requests: 0,
            by_caller: BTreeMap::new(),
            trace: traced.then(String::new),
        })))
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("no panic")
    }

    /// Returns the connection of a caller.
    pub fn of(&self, caller: usize) -> Wire {
        Wire { network: self.clone(), caller }
    }

    /// Breaks all connections of a caller.
    pub fn hang_up(&self, caller: usize) {
        self.world().watches.retain(|watch| {
            if watch.caller == caller {
                let mut state = watch.state.lock().expect("no panic");
                state.ended = true;
                state.waker.take().into_iter().for_each(Waker::wake);
            }
            watch.caller != caller
        });
    }

    fn way(&self) -> Duration {
        let mut world = self.world();
        let latency = world.weather.latency;
        Duration::from_millis(world.random.between(1, latency))
    }

    /// Sends a request. It takes effect even if the sender does not wait for the answer.
    pub async fn send(&self, caller: usize, request: Request<Bytes>) -> Result<Answer, BoxError> {
        let (answer, answered) = oneshot::channel();
        let this = self.clone();
        let to_there = self.way();
        tokio::spawn(async move {
            tokio::time::sleep(to_there).await;
            let result = this.execute(caller, &request);
            let back = this.way();
            let lost = {
                let mut world = this.world();
                let unanswered = world.weather.unanswered;
                world.random.percent(unanswered)
            };
            if lost {
                // No answer is sent: the caller waits until it gives up.
                let mut answer = answer;
                answer.closed().await;
                return;
            }
            tokio::time::sleep(back).await;
            let _ = answer.send(result);
        });
        Ok(answered.await?)
    }

    fn execute(&self, caller: usize, request: &Request<Bytes>) -> Answer {
        let Some(asked) = Asked::read(request) else {
            return Answer::refused(&Refusal {
                code: 400,
                reason: "BadRequest",
                message: format!("{} {}", request.method(), request.uri()),
                name: String::new(),
            });
        };
        let mut world = self.world();
        let before = world.store.version();
        let answer = world.execute(&asked, caller, self);
        world.requests += 1;
        *world.by_caller.entry(caller).or_default() += 1;
        if world.trace.is_some() && asked.resource != "events" {
            let mut hasher = DefaultHasher::new();
            request.body().hash(&mut hasher);
            let line = format!(
                "{:>7} {caller} {} {} {:016x} {} {}",
                world.start.elapsed().as_millis(),
                request.method(),
                request.uri(),
                hasher.finish(),
                answer.code,
                world.store.version(),
            );
            if let Some(trace) = &mut world.trace {
                let _ = writeln!(trace, "{line}");
            }
        }
        if world.store.version() != before {
            world.announce(asked.resource);
        }
        answer
    }
}

impl World {
    pub fn requests_of(&self, caller: usize) -> u64 {
        self.by_caller.get(&caller).copied().unwrap_or(0)
    }

    /// Schedules that the present content of the log of a kind arrives soon.
    pub fn announce(&mut self, resource: &'static str) {
        let upto = self.store.kind(resource).log.len();
        for watch in &self.watches {
            if watch.resource != resource {
                continue;
            }
            let lag = Duration::from_millis(self.random.between(0, self.weather.lag));
            let mut state = watch.state.lock().expect("no panic");
            let at = Instant::now() + lag;
            let at = state.underway.back().map_or(at, |(last, _)| at.max(*last));
            state.underway.push_back((at, upto));
            state.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    fn execute(&mut self, asked: &Asked, caller: usize, network: &Network) -> Answer {
        let Asked { ask, resource, namespace, name, of_status, dry_run, selector } = asked;
        let within = namespace.clone().unwrap_or_default();
        let key: Key = (within.clone(), name.clone().unwrap_or_default());
        let written = match ask.clone() {
            Ask::Get => match self.store.get(resource, &key) {
                Some(object) => Ok(object.clone()),
                None => Err(Refusal::absent(&key.1)),
            },
            Ask::List => return self.list(asked),
            Ask::Watch { from } => {
                let log = &self.store.kind(resource).log;
                let cursor = log.partition_point(|change| change.version <= from);
                let state = Arriving {
                    cursor,
                    underway: [(Instant::now(), log.len())].into(),
                    ..Arriving::default()
                };
                let watch = Arc::new(Watch {
                    caller,
                    resource,
                    namespace: namespace.clone(),
                    selector: selector.clone(),
                    state: Mutex::new(state),
                });
                self.watches.push(watch.clone());
                let body = ReplyBody::Watch {
                    network: network.clone(),
                    watch,
                    sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
                };
                return Answer { code: 200, body };
            }
            Ask::Create(value) => self.store.create(resource, &within, value, *dry_run),
            Ask::Replace(value) => {
                self.store.update(resource, &key, *of_status, *dry_run, |object| *object = value)
            }
            Ask::Patch(patch) => {
                self.store
                    .update(resource, &key, *of_status, *dry_run, |object| merge(object, patch))
            }
            Ask::Delete(only) => {
                return match self.store.delete(resource, &key, &only) {
                    Ok(()) => Answer::ok(Bytes::from_static(
                        b"{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Success\"}",
                    )),
                    Err(refusal) => Answer::refused(&refusal),
                };
            }
        };
        match written {
            Ok(object) => Answer::ok(object.text.clone()),
            Err(refusal) => Answer::refused(&refusal),
        }
    }

    fn list(&mut self, asked: &Asked) -> Answer {
        let (kind, api) = kind(asked.resource);
        let version = self.store.version();
        let mut text = format!(
            "{{\"kind\":\"{kind}List\",\"apiVersion\":\"{api}\",\"metadata\":{{\"resourceVersion\":\"{version}\"}},\"items\":["
        )
        .into_bytes();
        let all = self.store.list(asked.resource, asked.namespace.as_deref(), &asked.selector);
        for (n, object) in all.enumerate() {
            if n > 0 {
                text.push(b',');
            }
            text.extend_from_slice(&object.text);
        }
        text.extend_from_slice(b"]}");
        Answer::ok(text.into())
    }
}

impl Watch {
    /// Returns the event that a change is for this watch.
    fn event(&self, change: &Change) -> Option<Bytes> {
        let shown = |object: &Option<Arc<Stored>>| {
            object
                .as_ref()
                .filter(|object| {
                    let namespace = self.namespace.as_deref();
                    namespace.is_none_or(|it| object.value["metadata"]["namespace"] == it)
                        && self.selector.selects(object)
                })
                .cloned()
        };
        let (word, object) = match (shown(&change.before), shown(&change.after)) {
            (None, Some(object)) => ("ADDED", object.text.clone()),
            (Some(_), Some(object)) => ("MODIFIED", object.text.clone()),
            (Some(before), None) => ("DELETED", deleted(&before, change.version)),
            (None, None) => return None,
        };
        let mut line = format!("{{\"type\":\"{word}\",\"object\":").into_bytes();
        line.extend_from_slice(&object);
        line.extend_from_slice(b"}\n");
        Some(line.into())
    }
}

fn deleted(before: &Stored, version: u64) -> Bytes {
    if before.version == version {
        return before.text.clone();
    }
    let mut value: Value = before.value.clone();
    value["metadata"]["resourceVersion"] = json!(version.to_string());
    serde_json::to_vec(&value).expect("JSON").into()
}

/// An answer to a request.
pub struct Answer {
    pub code: u16,
    pub body: ReplyBody,
}

impl Answer {
    fn ok(text: Bytes) -> Self {
        Self { code: 200, body: ReplyBody::Text(Some(text)) }
    }

    fn refused(refusal: &Refusal) -> Self {
        Self { code: refusal.code, body: ReplyBody::Text(Some(refusal.body())) }
    }
}

/// The body of an answer: a text, or the events of a watch.
pub enum ReplyBody {
    Text(Option<Bytes>),
    Watch { network: Network, watch: Arc<Watch>, sleep: Pin<Box<tokio::time::Sleep>> },
}

impl hyper::body::Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Watch { network, watch, sleep } => loop {
                let mut state = watch.state.lock().expect("no panic");
                if state.ended {
                    return Poll::Ready(None);
                }
                let Some((at, upto)) = state.underway.front().copied() else {
                    state.waker = Some(context.waker().clone());
                    return Poll::Pending;
                };
                if at > Instant::now() {
                    state.waker = Some(context.waker().clone());
                    if sleep.deadline() != at {
                        sleep.as_mut().reset(at);
                    }
                    if sleep.poll_unpin(context).is_pending() {
                        return Poll::Pending;
                    }
                }
                if state.cursor >= upto {
                    state.underway.pop_front();
                    continue;
                }
                let cursor = state.cursor;
                state.cursor += 1;
                drop(state);
                let mut world = network.world();
                let change = world.store.kind(watch.resource).log[cursor].clone();
                drop(world);
                if let Some(line) = watch.event(&change) {
                    return Poll::Ready(Some(Ok(Frame::data(line))));
                }
            },
        }
    }
}

/// The connection through which a process sends its requests.
#[derive(Clone)]
pub struct Wire {
    network: Network,
    caller: usize,
}

impl Service<Request<Body>> for Wire {
    type Response = Response<ReplyBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<ReplyBody>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (network, caller) = (self.network.clone(), self.caller);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let answer = network.send(caller, Request::from_parts(head, body)).await?;
            Ok(Response::builder().status(answer.code).body(answer.body)?)
        }
        .boxed()
    }
}

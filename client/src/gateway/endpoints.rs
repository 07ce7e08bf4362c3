//! The gateways that this process knows, and one request to one of them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use beatkeeper_api::{
    beats::{BEATS_PATH, BeatAnswer, BeatAnswers, BeatLease, Beats},
    duration,
};
use futures::FutureExt;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Error as HttpError;
use jiff::Timestamp;
use kube::{Config, client::Body};
use rand::seq::SliceRandom;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use tower::{BoxError, ServiceExt};

use super::{
    refusal::{Refusal, is_elsewhere_better},
    settings::{GatewaySettings, GatewayUrl},
};
use crate::{
    failure::Cause,
    headers::retry_after,
    timeout::TimedOut,
    transport::{ConnectError, HttpService, PeerAddress, Resolver, Source, system_resolver},
};

/// The longest answer that is read, in bytes. That to 1,000 beats has some 200 bytes for each; a refusal has its message.
const ANSWER_MAX: usize = 4 << 20;

/// The pace of an instance, in the answer to its beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarriedBeat {
    /// How long the instance may be silent.
    pub ttl: Duration,
    /// How often the instance is to beat.
    pub interval: Duration,
}

/// What has become of one beat.
pub(crate) type Outcome = Result<CarriedBeat, Refusal>;

/// Until when beats may wait for their answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// The most urgent of them. If there is no answer then, another gateway is asked.
    pub(super) first: Instant,
    /// The least urgent of them.
    pub(super) last: Instant,
}

/// All gateways that are known. Requests go to one of them, until it fails.
pub(super) struct Endpoints {
    all: Vec<HttpService>,
    current: AtomicUsize,
    /// Whether the last answer of the current one had 503 for each beat.
    unavailable: AtomicBool,
}

/// The answer to a request.
struct Answered {
    outcomes: Vec<Outcome>,
    /// The gateway ends this connection, because it ends itself or has no stream.
    closes: bool,
    peer: Option<SocketAddr>,
}

/// A request without an answer to each beat.
struct Failed {
    refusal: Refusal,
    peer: Option<SocketAddr>,
    /// Whether another gateway may answer better.
    elsewhere: bool,
    /// Whether every address of this URL was tried.
    exhausted: bool,
}

impl Endpoints {
    /// Reads the files; nothing is sent yet.
    pub(super) fn open(
        settings: &GatewaySettings,
        user_agent: &str,
        resolver: Resolver,
    ) -> Result<Self, ConnectError> {
        let open = |url: &GatewayUrl| {
            let mut config = Config::new(url.uri().clone());
            config.root_cert_file = Some(settings.ca_file.clone());
            config.auth_info.token_file = Some(settings.token_file.to_string_lossy().into_owned());
            HttpService::open_with(&Source::from(config), user_agent, Arc::clone(&resolver))
        };
        let mut all = settings.urls.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        // Otherwise all processes would begin with the first one.
        all.shuffle(&mut rand::rng());
        Ok(Self { all, current: AtomicUsize::new(0), unavailable: AtomicBool::new(false) })
    }

    /// Sends beats, and once more at another address what the first one could not answer. Returns one outcome for each.
    pub(super) async fn send(&self, leases: &[BeatLease], deadlines: Deadlines) -> Vec<Outcome> {
        let end = deadlines.last;
        let (first, place) = self.attempt(leases, deadlines.first).await;
        match first {
            Ok(Answered { mut outcomes, closes, peer }) => {
                if closes || self.is_unavailable_again(&outcomes) {
                    self.leave(place, peer);
                }
                if closes {
                    let again: Vec<usize> =
                        (0..outcomes.len()).filter(|n| is_unavailable(&outcomes[*n])).collect();
                    self.send_again(leases, &again, &mut outcomes, end).await;
                }
                outcomes
            }
            Err(Failed { refusal, peer, elsewhere, exhausted }) => {
                if elsewhere {
                    self.leave(place, peer);
                }
                let mut outcomes = vec![Err(refusal); leases.len()];
                if elsewhere && !(exhausted && self.all.len() == 1) {
                    let again: Vec<usize> = (0..outcomes.len()).collect();
                    self.send_again(leases, &again, &mut outcomes, end).await;
                }
                outcomes
            }
        }
    }

    /// Sends some of the beats to another address. An answer replaces the earlier outcome.
    async fn send_again(
        &self,
        leases: &[BeatLease],
        which: &[usize],
        outcomes: &mut [Outcome],
        end: Instant,
    ) {
        if which.is_empty() || Instant::now() >= end {
            return;
        }
        let again: Vec<BeatLease> = which.iter().map(|n| leases[*n].clone()).collect();
        let (second, place) = self.attempt(&again, end).await;
        match second {
            Ok(Answered { outcomes: second, closes, peer }) => {
                if closes {
                    self.leave(place, peer);
                }
                for (n, outcome) in which.iter().zip(second) {
                    outcomes[*n] = outcome;
                }
            }
            Err(Failed { refusal, peer, elsewhere, .. }) => {
                if elsewhere {
                    self.leave(place, peer);
                }
                for n in which {
                    outcomes[*n] = Err(refusal.clone());
                }
            }
        }
    }

    /// Whether this answer and the last one had 503 for each beat. A single one may be about one instance, whose Lease no
    /// leader has seen yet, and a new connection costs more than a beat.
    fn is_unavailable_again(&self, outcomes: &[Outcome]) -> bool {
        let now = outcomes.iter().all(is_unavailable);
        self.unavailable.swap(now, Relaxed) && now
    }

    /// Sends the next requests elsewhere, if nothing else has done so meanwhile.
    fn leave(&self, place: usize, peer: Option<SocketAddr>) {
        self.unavailable.store(false, Relaxed);
        if let Some(service) = self.all.get(place % self.all.len().max(1)) {
            service.leave(peer);
        }
        let _ = self.current.compare_exchange(place, place.wrapping_add(1), Relaxed, Relaxed);
    }

    /// Sends beats to the current gateway. Returns its place, too.
    async fn attempt(
        &self,
        leases: &[BeatLease],
        end: Instant,
    ) -> (Result<Answered, Failed>, usize) {
        let place = self.current.load(Relaxed);
        let Some(service) = self.all.get(place % self.all.len().max(1)) else {
            let refusal = Refusal::found(Cause::Other, "no gateway is configured");
            let failed = Failed { refusal, peer: None, elsewhere: false, exhausted: true };
            return (Err(failed), place);
        };
        let limit = end.saturating_duration_since(Instant::now());
        let answer = timeout_at(end, exchange(service.clone(), leases)).await;
        let answer = answer.unwrap_or_else(|_| {
            let refusal = Refusal::timeout(TimedOut(limit));
            Err(Failed { refusal, peer: None, elsewhere: true, exhausted: false })
        });
        (answer, place)
    }
}

/// Sends one request and reads its answer.
async fn exchange(service: HttpService, leases: &[BeatLease]) -> Result<Answered, Failed> {
    let unreadable = |peer, details: &str| Failed {
        refusal: Refusal::found(Cause::Other, details),
        peer,
        elsewhere: true,
        exhausted: false,
    };
    let body = serde_json::to_vec(&Beats::of(leases.to_vec())).unwrap_or_default();
    let request = Request::post(BEATS_PATH)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .map_err(|_| unreadable(None, "the beats cannot be sent"))?;
    let response = service.oneshot(request).await.map_err(|error| Failed {
        exhausted: error.downcast_ref::<HttpError>().is_some_and(HttpError::is_connect),
        refusal: Refusal::no_connection(&error),
        peer: None,
        elsewhere: true,
    })?;
    let (status, peer) = (response.status(), peer(&response));
    let closes = closes(&response);
    let wait = retry_after(response.headers(), Timestamp::now());
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|error: BoxError| Failed {
        refusal: Refusal::no_connection(&error),
        peer,
        elsewhere: true,
        exhausted: false,
    })?;
    let body = body.to_bytes();
    if status != StatusCode::OK {
        let message = serde_json::from_slice::<Said>(&body).ok().map(|said| said.message);
        let refusal = Refusal::of(status.as_u16(), message.as_deref(), wait);
        let elsewhere = closes || is_elsewhere_better(status);
        return Err(Failed { refusal, peer, elsewhere, exhausted: false });
    }
    let answers = serde_json::from_slice::<BeatAnswers>(&body)
        .map_err(|_| unreadable(peer, "the answer cannot be read: is it a gateway?"))?;
    let fits = |(answer, lease): (&BeatAnswer, &BeatLease)| {
        answer.namespace == lease.namespace && answer.name == lease.name
    };
    if answers.items.len() != leases.len() || !answers.items.iter().zip(leases).all(fits) {
        return Err(unreadable(peer, "the answer is not for the beats that were sent"));
    }
    let outcomes = answers.items.iter().map(outcome).collect();
    Ok(Answered { outcomes, closes, peer })
}

/// The part of a Status that is shown.
#[derive(Deserialize)]
struct Said {
    message: String,
}

fn peer(response: &Response<Incoming>) -> Option<SocketAddr> {
    response.extensions().get::<PeerAddress>().map(|PeerAddress(address)| *address)
}

/// Whether the gateway ends the connection after this answer.
fn closes(response: &Response<Incoming>) -> bool {
    let values = response.headers().get_all(header::CONNECTION);
    let says = |text: &str| text.split(',').any(|part| part.trim().eq_ignore_ascii_case("close"));
    values.iter().filter_map(|value| value.to_str().ok()).any(says)
}

/// Whether the answer to a beat was 503, or the like.
fn is_unavailable(outcome: &Outcome) -> bool {
    outcome.as_ref().is_err_and(|refusal| refusal.cause == Cause::ServerError)
}

fn outcome(answer: &BeatAnswer) -> Outcome {
    if answer.code != StatusCode::OK.as_u16() {
        return Err(Refusal::to_beat(answer));
    }
    let read = |text: &Option<String>| duration::parse(text.as_deref()?).ok();
    match (read(&answer.ttl), read(&answer.interval)) {
        (Some(ttl), Some(interval)) => Ok(CarriedBeat { ttl, interval }),
        _ => Err(Refusal::found(Cause::Other, "the answer has no ttl and interval")),
    }
}

/// The resolver of the system, with the addresses in another order each time: a process stays with the address to which
/// it has connected, and all together have to use all gateways.
pub(super) fn shuffled() -> Resolver {
    let system = system_resolver();
    Arc::new(move |host, port| {
        let found = system(host, port);
        async move {
            let mut found = found.await?;
            found.shuffle(&mut rand::rng());
            Ok(found)
        }
        .boxed()
    })
}

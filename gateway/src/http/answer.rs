//! Answers one request.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    rc::Rc,
    time::Duration,
};

use beatkeeper_api::bearer::bearer;
use beatkeeper_core::{
    carriers::{gateway::Answer, rights::Identity},
    vocabulary::{key::Key, monotonic_time::MonotonicTime},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout};

use crate::{
    gateway::Hub,
    http::{
        bodies::Bodies,
        body,
        connection::Watch,
        proofs::Proofs,
        rates::Rates,
        refusal::Refused,
        reply::{self, Reply},
        route::{self, Route},
    },
    identity::{
        authenticator::Authenticator,
        ports::{NotVerified, Verified},
    },
    settings::Limits,
};

/// How long an answer to many beats waits for the last one of them. Those without an answer are to be sent again.
const BEATS_WITHIN: Duration = Duration::from_secs(2);

/// What all connections share.
pub struct App {
    /// The gateway.
    pub hub: Rc<Hub>,
    /// Who beats.
    pub authenticator: Authenticator,
    /// What instances may use.
    pub limits: Limits,
    /// The beats of the gateway's own.
    pub proofs: Proofs,
    rates: Rates,
    introductions: Rates,
    bodies: Rc<Bodies>,
    drains: Cell<bool>,
}

impl App {
    /// With these parts.
    pub fn new(hub: Rc<Hub>, authenticator: Authenticator, limits: Limits, proofs: Proofs) -> Self {
        let rates = Rates::new(limits.rate, limits.identities);
        let introductions = Rates::new(limits.introductions, limits.identities);
        let (bodies, drains) = (Rc::default(), Cell::new(false));
        Self { hub, authenticator, limits, proofs, rates, introductions, bodies, drains }
    }

    /// From now on, each answer is the last one on its connection.
    pub fn drain(&self) {
        self.drains.set(true);
    }

    /// Whether that is so.
    pub fn drains(&self) -> bool {
        self.drains.get()
    }

    /// Whether an identity may beat for a Lease now, as far as rates say it.
    fn may_beat(&self, lease: &Key, identity: &Identity) -> Result<(), Refused> {
        let now = self.hub.clock.now();
        self.rates.take(identity, now).map_err(Refused::TooOften)?;
        if self.hub.may_renew(lease, identity) {
            return Ok(());
        }
        self.introductions.take(identity, now).map_err(Refused::TooManyNew)
    }

    fn has_room(&self, beats: usize) -> Result<(), Refused> {
        let open = self.hub.open_beats().saturating_add(beats);
        if open > self.limits.open_beats { Err(Refused::Busy) } else { Ok(()) }
    }
}

/// The token that a connection has shown last, and what was found.
struct Remembered {
    token: Box<str>,
    verified: Verified,
}

/// One connection.
pub struct Connection {
    app: Rc<App>,
    watch: Rc<Watch>,
    remembered: RefCell<Option<Remembered>>,
}

/// Who sends a request.
enum Sender {
    Instance(Identity),
    /// This process.
    Own,
}

/// Why a request is no beat, and for which Lease it was.
type Failed = (Option<Key>, Refused);

impl Connection {
    /// A new one.
    pub fn new(app: Rc<App>, watch: Rc<Watch>) -> Self {
        Self { app, watch, remembered: RefCell::default() }
    }

    /// Answers a request.
    pub async fn answer(
        self: Rc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let _busy = self.watch.begin();
        let version = request.version();
        let mut reply = self.reply(request).await.unwrap_or_else(|(lease, refused)| {
            let (_, _, label) = refused.code();
            self.app.hub.metrics.refused(label);
            reply::refused(lease.as_ref(), &refused)
        });
        reply.closes |= self.app.drains() || self.watch.has_to_move(Instant::now());
        if reply.closes {
            self.watch.close();
        }
        Ok(reply.response(version))
    }

    async fn reply(&self, request: Request<Incoming>) -> Result<Reply, Failed> {
        let (head, body) = request.into_parts();
        let route = route::of(&head.method, &head.uri).map_err(|refused| (None, refused))?;
        match route {
            Route::Beat(lease) => match self.beat(&lease, &head.headers, body).await {
                Ok(reply) => Ok(reply),
                Err(refused) => Err((Some(lease), refused)),
            },
            Route::Beats => {
                self.beats(&head.headers, body).await.map_err(|refused| (None, refused))
            }
        }
    }

    async fn beat(
        &self,
        lease: &Key,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Reply, Refused> {
        let sender = self.sender(headers).await?;
        if let Sender::Instance(identity) = &sender {
            self.app.may_beat(lease, identity)?;
        }
        let body = self.read(body, self.app.limits.beat_bytes).await?;
        body::beat(lease, content_type(headers), &body)?;
        let Sender::Instance(identity) = sender else {
            self.app.hub.metrics.proofs.inc();
            self.app.hub.path_is_proven(&self.app.proofs.arrived(lease));
            return Ok(reply::proven());
        };
        // After the body has come: others may have begun to wait meanwhile.
        self.app.has_room(1)?;
        let began = self.app.hub.clock.now();
        let mut pending = self.app.hub.beat(std::slice::from_ref(lease), &identity);
        (&mut pending).await;
        // Nothing but the answer ends the wait.
        let answer = pending.so_far().pop().flatten().ok_or(Refused::Busy)?;
        self.count(&answer, began);
        Ok(reply::beat(lease, &answer))
    }

    async fn beats(&self, headers: &HeaderMap, body: Incoming) -> Result<Reply, Refused> {
        let Sender::Instance(identity) = self.sender(headers).await? else {
            return Err(Refused::Path);
        };
        let limits = &self.app.limits;
        let most = body.size_hint().upper();
        // One that is announced to be short costs no more than a beat, and many programs may share an identity.
        let is_long = most.is_none_or(|most| most > limits.beat_bytes as u64);
        let leases = {
            let begin = || self.app.bodies.begin(&identity, limits);
            let _reading = is_long.then(begin).transpose()?;
            let body = self.read(body, limits.beats_bytes).await?;
            body::beats(content_type(headers), &body)?
        };
        self.app.has_room(leases.len())?;
        let may = leases.iter().map(|lease| self.app.may_beat(lease, &identity));
        let may: Vec<_> = may.collect();
        let allowed = leases.iter().zip(&may).filter(|(_, may)| may.is_ok());
        let allowed: Vec<Key> = allowed.map(|(lease, _)| lease.clone()).collect();
        let began = self.app.hub.clock.now();
        let mut pending = self.app.hub.beat(&allowed, &identity);
        let _ = timeout(BEATS_WITHIN, &mut pending).await;
        let mut answers = pending.so_far().into_iter();
        for answer in answers.clone().flatten() {
            self.count(&answer, began);
        }
        let answers = may.into_iter().map(|may| {
            may.inspect_err(|refused| self.app.hub.metrics.refused(refused.code().2))
                .map(|()| answers.next().flatten())
        });
        Ok(reply::beats(leases, answers.collect()))
    }

    fn count(&self, answer: &Answer, began: MonotonicTime) {
        let hub = &self.app.hub;
        match answer {
            Answer::Accepted(_) => hub.metrics.accepted(hub.clock.now().since(began).as_secs_f64()),
            other => hub.metrics.not_accepted(reply::label(other)),
        }
    }

    async fn read(&self, body: Incoming, limit: usize) -> Result<Bytes, Refused> {
        let within = self.app.limits.body;
        let read = timeout(within, Limited::new(body, limit).collect()).await;
        let read = read.map_err(|_| Refused::Slow(within))?;
        read.map(http_body_util::Collected::to_bytes).map_err(|error| {
            if error.is::<LengthLimitError>() {
                Refused::TooLong(limit)
            } else {
                Refused::BrokenOff
            }
        })
    }

    async fn sender(&self, headers: &HeaderMap) -> Result<Sender, Refused> {
        let app = &self.app;
        let no_token =
            || NotVerified::NoToken { audience: app.authenticator.audience().to_owned() };
        let values = headers.get_all(header::AUTHORIZATION).iter();
        let token = bearer(values.map(HeaderValue::as_bytes))
            .ok_or_else(no_token)
            .map_err(Refused::NotVerified)?;
        if let Some(identity) = self.known(token) {
            return Ok(Sender::Instance(identity));
        }
        if app.proofs.is_own(token) {
            return Ok(Sender::Own);
        }
        app.hub.metrics.tokens.inc();
        let verified = app.authenticator.verify(token).await.map_err(Refused::NotVerified)?;
        let identity = verified.identity.clone();
        *self.remembered.borrow_mut() = Some(Remembered { token: token.into(), verified });
        Ok(Sender::Instance(identity))
    }

    /// Who the remembered token is of, if it is this one. A review counts for a minute and the token for longer, so an
    /// entry that no longer counts is forgotten, and the token is verified anew.
    fn known(&self, token: &str) -> Option<Identity> {
        let mut remembered = self.remembered.borrow_mut();
        let known = remembered.as_ref().filter(|it| *it.token == *token)?;
        if self.app.authenticator.still(&known.verified) {
            return Some(known.verified.identity.clone());
        }
        *remembered = None;
        None
    }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()
}

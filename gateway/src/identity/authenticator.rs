//! Finds out who a token is of.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    time::Duration,
};

use beatkeeper_core::vocabulary::monotonic_time::MonotonicTime;
use tokio::sync::{Mutex, Semaphore};

use crate::{
    clock::Clock,
    identity::{
        claims::Expected,
        issuers::Issuers,
        keys::{self, Keys},
        ports::{AskFailed, CannotCheck, KeySource, NotVerified, TokenReviewer, Verified},
    },
    wire::fields,
};

/// No token of Kubernetes comes near this length.
const TOKEN_MAX: usize = 12 * 1024;
/// A key or an issuer that is not known lets both be read again, but not more often than this.
const KEYS_AT_MOST_EVERY: Duration = Duration::from_secs(10);
/// Keys that are withdrawn are forgotten within this time.
const KEYS_AT_LEAST_EVERY: Duration = Duration::from_secs(300);
/// The most reviews that are remembered.
const REVIEWS_MAX: usize = 4096;
/// The most reviews at the same time.
const REVIEWS_PARALLEL: usize = 8;
/// The most reviews that wait for their turn.
const REVIEWS_WAITING: usize = 256;

/// How tokens are checked.
pub enum Way {
    /// By the published keys. A beat asks the API server nothing.
    Keys(Box<dyn KeySource>),
    /// By a TokenReview of each token. It notices that a Pod is gone.
    Reviews {
        /// What reviews tokens.
        reviewer: Box<dyn TokenReviewer>,
        /// How long an answer counts, in whole seconds.
        lasts: Duration,
    },
}

/// Finds out who tokens are of.
pub struct Authenticator {
    way: Way,
    audience: String,
    clock: Clock,
    issuers: RefCell<Issuers>,
    keys: RefCell<Keys>,
    /// When the keys were asked for last, successfully or not.
    asked: Cell<Option<MonotonicTime>>,
    asking: Mutex<()>,
    reviews: RefCell<HashMap<Box<str>, Verified>>,
    reviewing: Semaphore,
    review_waits: Cell<usize>,
}

impl Authenticator {
    /// Tokens have to say what is expected.
    pub fn new(way: Way, expected: Expected, clock: Clock) -> Self {
        let Expected { issuer, besides, audience } = expected;
        Self {
            way,
            audience,
            clock,
            issuers: RefCell::new(Issuers::new(issuer, besides)),
            keys: RefCell::default(),
            asked: Cell::new(None),
            asking: Mutex::new(()),
            reviews: RefCell::default(),
            reviewing: Semaphore::new(REVIEWS_PARALLEL),
            review_waits: Cell::new(0),
        }
    }

    /// The audience that tokens have to be for.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// Whether what was found out about a token earlier still counts.
    pub fn still(&self, verified: &Verified) -> bool {
        self.clock.wall_seconds() < verified.expires
    }

    /// Who a token is of.
    ///
    /// # Errors
    /// [`NotVerified`].
    pub async fn verify(&self, token: &str) -> Result<Verified, NotVerified> {
        if token.len() > TOKEN_MAX {
            return Err(NotVerified::TooLong(TOKEN_MAX));
        }
        let verified = match &self.way {
            Way::Keys(source) => self.by_keys(source.as_ref(), token).await?,
            Way::Reviews { reviewer, lasts } => {
                self.by_review(reviewer.as_ref(), *lasts, token).await?
            }
        };
        match fields::can_be_sent(&verified.identity) {
            true => Ok(verified),
            false => Err(NotVerified::Name),
        }
    }

    async fn by_keys(&self, source: &dyn KeySource, token: &str) -> Result<Verified, NotVerified> {
        let (key, algorithm) = keys::head(token)?;
        let knows = || self.keys.borrow().knows(&key);
        if !knows() {
            self.refetch(source, knows).await?;
        }
        let claims = keys::signed(token, &key, algorithm, &self.keys.borrow())?;
        let accepted = || self.issuers.borrow().accept(claims.issuer(), self.clock.now());
        if !accepted() {
            let refetched = self.refetch(source, accepted).await;
            if !accepted() {
                return Err(self.wrong_issuer(claims.issuer(), refetched));
            }
        }
        claims.check(&self.audience, self.clock.wall_seconds())
    }

    /// Why a token of this issuer is not accepted, after the issuer was to be read again.
    fn wrong_issuer(&self, found: &str, refetched: Result<(), NotVerified>) -> NotVerified {
        match refetched {
            Err(NotVerified::CannotCheck(CannotCheck::ApiServer)) => {
                NotVerified::CannotCheck(CannotCheck::ApiServer)
            }
            _ => NotVerified::Issuer {
                found: found.to_owned(),
                expected: self.issuers.borrow().current().to_owned(),
            },
        }
    }

    /// Reads the keys and the issuer, because something is not known. Reading is over if it is known.
    async fn refetch(
        &self,
        source: &dyn KeySource,
        is_known: impl Fn() -> bool,
    ) -> Result<(), NotVerified> {
        let _turn = self.asking.lock().await;
        if is_known() {
            return Ok(());
        }
        let now = self.clock.now();
        if self.asked.get().is_some_and(|asked| now.since(asked) < KEYS_AT_MOST_EVERY) {
            let why = match self.keys.borrow().len() {
                0 => CannotCheck::ApiServer,
                _ => CannotCheck::KeysAreFresh,
            };
            return Err(NotVerified::CannotCheck(why));
        }
        match self.fetch(source).await {
            Err(error) if !is_known() => {
                tracing::warn!(%error, "cannot read the keys and the issuer of the cluster");
                Err(NotVerified::CannotCheck(CannotCheck::ApiServer))
            }
            _ => Ok(()),
        }
    }

    async fn fetch(&self, source: &dyn KeySource) -> Result<(), AskFailed> {
        self.asked.set(Some(self.clock.now()));
        let keys = Keys::read(&source.keys().await?)?;
        if keys.len() == 0 {
            tracing::warn!("the cluster publishes no key that can be used");
        }
        *self.keys.borrow_mut() = keys;
        let issuer = source.issuer().await?;
        if self.issuers.borrow_mut().published(issuer.clone(), self.clock.now()) {
            tracing::info!(
                issuer,
                "the cluster has another issuer; the former one is accepted for 24 h"
            );
        }
        Ok(())
    }

    /// Reads the keys again and again, for ever. Without this, a withdrawn key would count for ever.
    pub async fn follow_keys(&self) {
        let Way::Keys(source) = &self.way else { return std::future::pending().await };
        loop {
            {
                let _turn = self.asking.lock().await;
                if let Err(error) = self.fetch(source.as_ref()).await {
                    tracing::warn!(%error, "cannot read the keys and the issuer of the cluster; the known ones count");
                }
            }
            tokio::time::sleep(KEYS_AT_LEAST_EVERY).await;
        }
    }

    async fn by_review(
        &self,
        reviewer: &dyn TokenReviewer,
        lasts: Duration,
        token: &str,
    ) -> Result<Verified, NotVerified> {
        let now = self.clock.wall_seconds();
        if let Some(known) = self.reviews.borrow().get(token).filter(|known| now < known.expires) {
            return Ok(known.clone());
        }
        let _turn = self.turn().await?;
        let reviewed = reviewer.review(token, &self.audience).await;
        let identity = reviewed.map_err(|error| {
            tracing::warn!(%error, "cannot review a token");
            NotVerified::CannotCheck(CannotCheck::ApiServer)
        })?;
        let identity = identity.ok_or(NotVerified::Reviewed)?;
        let seconds = i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX);
        let verified = Verified { identity, expires: now.saturating_add(seconds) };
        let mut reviews = self.reviews.borrow_mut();
        if reviews.len() >= REVIEWS_MAX {
            reviews.retain(|_, known| now < known.expires);
        }
        if reviews.len() < REVIEWS_MAX {
            reviews.insert(token.into(), verified.clone());
        }
        Ok(verified)
    }

    /// A turn to ask for a review. The queue is bounded: a flood of tokens would fill the memory.
    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, NotVerified> {
        let too_many = NotVerified::CannotCheck(CannotCheck::TooMany);
        if let Ok(turn) = self.reviewing.try_acquire() {
            return Ok(turn);
        }
        if self.review_waits.get() >= REVIEWS_WAITING {
            return Err(too_many);
        }
        let _place = Place::take(&self.review_waits);
        // The semaphore is never closed.
        self.reviewing.acquire().await.map_err(|_| too_many)
    }
}

/// One of those that wait. Its place is free again when it is dropped, also if the request is.
struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    fn take(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

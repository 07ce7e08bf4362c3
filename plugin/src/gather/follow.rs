//! Keeps a picture up to date from watches, and judges it again as seldom as possible.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{one, scope::Wanted, watch::Watches};
use crate::{clock::ServerClock, error::Error, model::live::Live, session::Session};

/// How often a view is drawn at most, for changes and for time that passes.
const FRAME: Duration = Duration::from_millis(100);
/// How often everything is judged again, because the time alone may change it.
const JUDGE_EVERY: Duration = Duration::from_secs(1);
/// After everything was judged, this many times its duration are left for other work.
const REST: u32 = 20;
/// The same after only some registrations were judged. One of them may have thousands of instances.
const REST_AFTER_SOME: u32 = 4;

/// The moments at which a view is drawn. Moments that were missed are not made up for.
pub fn frames() -> Interval {
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    frames
}

/// A picture that is kept up to date.
pub struct Following {
    live: Live,
    watches: Watches,
    clock: ServerClock,
    /// When to judge everything next.
    next_of_all: Instant,
    /// When to judge next what has changed.
    next: Instant,
}

impl Following {
    /// Starts to watch the wanted registrations.
    ///
    /// # Errors
    /// [`Error`], if only one is wanted, and it does not exist or cannot be read.
    pub async fn start(session: &Session, wanted: &Wanted) -> Result<Self, Error> {
        let service = match &wanted.name {
            Some(name) => Some(one(session, &wanted.scope, name).await?.service_name().to_owned()),
            None => None,
        };
        let watches = Watches::start(session, wanted, service.as_deref());
        let (live, now) = (Live::of(wanted.name.clone()), Instant::now());
        Ok(Self { live, watches, clock: session.clock, next_of_all: now, next: now })
    }

    /// What is known.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// The present time of the API server.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Waits for the next change and takes it in. Returns false if there will be no more.
    pub async fn take_next(&mut self) -> bool {
        match self.watches.next().await {
            Some(change) => self.live.apply(change, self.clock.now()),
            None => return false,
        }
        true
    }

    /// Takes in all changes that have arrived.
    pub fn take(&mut self) {
        while let Some(change) = self.watches.ready() {
            self.live.apply(change, self.clock.now());
        }
    }

    /// Judges again what has changed, or everything if it is time. Returns whether it did.
    pub fn refresh(&mut self) -> bool {
        let begun = Instant::now();
        let all = begun >= self.next_of_all;
        let some = begun >= self.next && self.live.is_dirty();
        if !all && !some {
            return false;
        }
        self.live.refresh(self.clock.now(), all);
        let (took, end) = (begun.elapsed(), Instant::now());
        self.next = end + took * REST_AFTER_SOME;
        if all {
            self.next_of_all = end + JUDGE_EVERY.max(took * REST);
        }
        true
    }
}

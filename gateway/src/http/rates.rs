//! How often each identity may beat, in bounded memory.

use std::{cell::RefCell, collections::HashMap, time::Duration};

use beatkeeper_core::{
    carriers::rights::Identity,
    vocabulary::{
        monotonic_time::MonotonicTime,
        rate_limit::{RateLimit, RateLimiter},
    },
};

/// A rate for each identity.
#[derive(Debug)]
pub struct Rates {
    limit: RateLimit,
    most: usize,
    used: RefCell<HashMap<Identity, RateLimiter>>,
}

impl Rates {
    /// A rate for each of at most `most` identities at the same time.
    pub fn new(limit: RateLimit, most: usize) -> Self {
        Self { limit, most, used: RefCell::default() }
    }

    /// Takes one permit of an identity.
    ///
    /// # Errors
    /// How long to wait.
    pub fn take(&self, identity: &Identity, now: MonotonicTime) -> Result<(), Duration> {
        let mut used = self.used.borrow_mut();
        if let Some(limiter) = used.get_mut(identity) {
            return limiter.take(self.limit, now).map_err(|at| at.since(now));
        }
        if used.len() >= self.most {
            // An identity that has used nothing lately needs no entry.
            used.retain(|_, limiter| !limiter.is_full(now));
            if used.len() >= self.most {
                return Err(self.limit.every.max(Duration::from_secs(1)));
            }
        }
        let mut limiter = RateLimiter::default();
        let taken = limiter.take(self.limit, now).map_err(|at| at.since(now));
        used.insert(identity.clone(), limiter);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit { burst: 2, every: Duration::from_secs(1) };

    fn user(n: usize) -> Identity {
        Identity { user: format!("user-{n}").into(), pod: None }
    }

    fn at(millis: u64) -> MonotonicTime {
        MonotonicTime::from_millis(millis)
    }

    #[test]
    fn one_that_beats_too_often_waits_and_others_do_not() {
        let rates = Rates::new(LIMIT, 10);
        let asked: Vec<_> = (0..4).map(|_| rates.take(&user(0), at(0)).is_ok()).collect();
        assert_eq!(asked, [true, true, false, false]);
        assert_eq!(rates.take(&user(0), at(400)), Err(Duration::from_millis(600)));
        assert_eq!(rates.take(&user(1), at(400)), Ok(()));
        assert_eq!(rates.take(&user(0), at(1000)), Ok(()));
    }

    #[test]
    fn the_memory_is_bounded_and_those_at_rest_make_room() {
        let rates = Rates::new(LIMIT, 10);
        for n in 0..10 {
            assert_eq!(rates.take(&user(n), at(0)), Ok(()));
        }
        assert!(rates.take(&user(10), at(0)).is_err());
        assert_eq!(rates.take(&user(5), at(0)), Ok(()), "it is known");
        assert_eq!(rates.take(&user(10), at(1000)), Ok(()));
        assert!(rates.used.borrow().len() <= 10);
    }
}

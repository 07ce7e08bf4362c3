//! What a loop knows of the way through a gateway.

use std::time::Duration;

use beatkeeper_api::Carrier;
use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    failure::Cause,
    gateway::{CarriedBeat, Gateway, Refusal},
    schedule::Pace,
};

/// How often the Lease is read while a gateway carries the beats: after five ttls, within these limits.
const CHECK_MIN: Duration = Duration::from_secs(30);
const CHECK_MAX: Duration = Duration::from_secs(600);
/// The longest pause between two tries at a gateway that refuses the instance.
const TRY_MAX: Duration = Duration::from_secs(300);
/// So many beats in a row without an answer make the reads of the registration frequent. When a single gateway ends, each of
/// its instances loses one beat, and the next one is accepted elsewhere.
const UNANSWERED_MAX: u32 = 2;

/// How long a takeover by another process may stay unnoticed while a gateway carries the beats.
///
/// A gateway binds a beat to the uid and the owner of the Lease. So it takes the beats of a process that has lost the
/// Lease to another one, and they hide the death of that one. The other process has just started when it takes the Lease
/// over. So only a death within the first five ttls of its life stays hidden, and only if two processes have one name. A
/// read with each beat would find this out at once, and would cost the API server a seventh of what such beats cost it.
pub(super) fn check_every(pace: &Pace) -> Duration {
    (pace.ttl() * 5).clamp(CHECK_MIN, CHECK_MAX)
}

/// A beat to a gateway, beside those that renew the Lease.
pub(super) type Trial = AbortOnDropHandle<Result<CarriedBeat, Refusal>>;

/// What a loop knows of the way through a gateway.
pub(super) struct Carrying {
    /// What the registration says.
    pub(super) wanted: Carrier,
    /// Whether the registration has said Gateway since this process started. Then another process may beat without a
    /// write to the Lease.
    pub(super) possible: bool,
    /// Whether a gateway carries the beats: it has accepted one since the Lease was claimed last.
    carried: bool,
    /// Whether gateways accept the beats. The reads of the registration are rare while this is true.
    steady: watch::Sender<bool>,
    /// How many beats in a row no gateway could answer.
    unanswered: u32,
    /// The beat that decides whether a gateway carries the next ones.
    pub(super) trial: Option<Trial>,
    /// When the next one may be sent, and the pause after it if it is refused.
    try_at: Instant,
    try_pause: Duration,
    /// When the Lease is to be read.
    check_at: Instant,
    /// When a gateway accepted a beat last.
    accepted_at: Option<Instant>,
    /// The pace in the last answer. Only another one is followed: the registration may have been read after the
    /// gateway was told of it.
    told: Option<CarriedBeat>,
    /// Why the last trial failed, as it was reported.
    reported: Option<Cause>,
}

impl Default for Carrying {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            wanted: Carrier::Lease,
            possible: false,
            carried: false,
            steady: watch::Sender::new(false),
            unanswered: 0,
            trial: None,
            try_at: now,
            try_pause: Duration::ZERO,
            check_at: now,
            accepted_at: None,
            told: None,
            reported: None,
        }
    }
}

impl Carrying {
    pub(super) fn is_carried(&self) -> bool {
        self.carried
    }

    /// Follows whether gateways accept the beats.
    pub(super) fn steady(&self) -> watch::Receiver<bool> {
        self.steady.subscribe()
    }

    /// Records what the registration says. Returns whether it says something else than before.
    pub(super) fn want(&mut self, wanted: Carrier) -> bool {
        self.possible |= wanted == Carrier::Gateway;
        std::mem::replace(&mut self.wanted, wanted) != wanted
    }

    /// Records that a gateway has accepted a beat. Returns the pace that it tells, if it tells another one than before.
    pub(super) fn accepted(&mut self, told: CarriedBeat, pace: &Pace) -> Option<CarriedBeat> {
        let now = Instant::now();
        if !self.carried {
            self.check_at = now + check_every(pace);
        }
        self.carried = true;
        self.accepted_at = Some(now);
        (self.try_pause, self.reported, self.unanswered) = (Duration::ZERO, None, 0);
        self.set_steady(true);
        (self.told.replace(told) != Some(told)).then_some(told)
    }

    /// Records that no gateway could answer.
    pub(super) fn unavailable(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
        if self.unanswered >= UNANSWERED_MAX {
            self.set_steady(false);
        }
    }

    /// Records that the Lease is renewed from now on, until a gateway accepts a beat.
    pub(super) fn end(&mut self) {
        (self.carried, self.trial, self.told) = (false, None, None);
        self.set_steady(false);
    }

    /// Whether a beat through a gateway is due beside a renewal of the Lease that fails.
    pub(super) fn is_due(&self, pace: &Pace) -> bool {
        let due = |at: Instant| at.elapsed() >= pace.interval().mul_f64(0.9);
        self.carried && self.accepted_at.is_none_or(due)
    }

    /// Whether the Lease is to be read now. The next read is planned: sooner if this one fails.
    pub(super) fn takes_check(&mut self, pace: &Pace) -> bool {
        let due = Instant::now() >= self.check_at;
        if due {
            self.check_at = Instant::now() + pace.interval() * 2;
        }
        due
    }

    /// Records that the Lease was read or written.
    pub(super) fn checked(&mut self, pace: &Pace) {
        // Between four and five ttls, so that instances that started together do not read together.
        self.check_at =
            Instant::now() + check_every(pace).mul_f64(0.8 + 0.2 * rand::random::<f64>());
    }

    /// Sends a beat beside the one that has just renewed the Lease, unless one is under way or is not due yet.
    pub(super) fn begin_trial(
        &mut self,
        gateway: &Gateway,
        lease: beatkeeper_api::beats::BeatLease,
        pace: &Pace,
    ) {
        if self.trial.is_some() || Instant::now() < self.try_at {
            return;
        }
        let (gateway, limit) = (gateway.clone(), pace.request_timeout());
        let trial = async move { gateway.beat(lease, false, limit).await };
        self.trial = Some(AbortOnDropHandle::new(tokio::spawn(trial)));
    }

    /// Plans the next trial after one that has failed. Returns whether its cause was not reported yet.
    pub(super) fn trial_failed(&mut self, refusal: &Refusal, pace: &Pace) -> bool {
        if refusal.is_final() {
            self.try_pause = (self.try_pause * 2).clamp(pace.interval(), TRY_MAX);
            self.try_at = Instant::now() + self.try_pause;
        }
        self.reported.replace(refusal.cause.clone()).as_ref() != Some(&refusal.cause)
    }

    fn set_steady(&self, steady: bool) {
        self.steady.send_if_modified(|now| std::mem::replace(now, steady) != steady);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_beat_without_an_answer_makes_no_instance_read_the_registration_more_often() {
        let (ttl, interval) = (Duration::from_secs(3), Duration::from_secs(1));
        let pace = Pace::new(ttl, interval, None).expect("a pace");
        let mut carrying = Carrying::default();
        let steady = carrying.steady();
        for _ in 0..3 {
            carrying.accepted(CarriedBeat { ttl, interval }, &pace);
            assert!(*steady.borrow());
            carrying.unavailable();
            assert!(*steady.borrow(), "one gateway of several may have ended");
        }
        carrying.unavailable();
        assert!(!*steady.borrow(), "two in a row");
        carrying.accepted(CarriedBeat { ttl, interval }, &pace);
        assert!(*steady.borrow());
        carrying.end();
        assert!(!*steady.borrow(), "the Lease is renewed again");
    }
}

//! The steps of the loop while the registration asks for a gateway.

use beatkeeper_api::Carrier;
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use tokio::time::Instant;

use super::{
    state::{ClaimState, HeartbeatLoop},
    way::{Circumstances, Way},
};
use crate::{
    event::{CarrierEvent, Event},
    failure::{Cause, Failure, Operation},
    gateway::{CarriedBeat, Refusal},
    lease::{Existing, LeaseVersion, Owner, renewed, rival},
    schedule::Pace,
};

/// What has become of a beat that was sent to a gateway.
enum Sent {
    Accepted,
    /// The health has changed meanwhile, and goes out at once.
    Interrupted,
}

impl HeartbeatLoop {
    /// Beats for a Lease that is ours. Returns the pace from now on.
    pub(super) async fn renew(
        &mut self,
        held: LeaseVersion,
        owner: &Owner,
        pace: Pace,
    ) -> Result<Pace, Failure> {
        self.end_trial(pace);
        let circumstances = self.circumstances(pace);
        match circumstances.way() {
            Way::Lease => self.beat_twice(held, owner, pace).await?,
            Way::Gateway => match self.carried_beat(&held, owner, pace, true).await? {
                Sent::Accepted => self.check_lease(owner, pace).await?,
                Sent::Interrupted => self.lease_or_gateway(held, owner, pace).await?,
            },
            Way::LeaseOrGateway => self.lease_or_gateway(held, owner, pace).await?,
        }
        let pace = self.pace.unwrap_or(pace);
        if circumstances.tries_gateway()
            && matches!(self.lease, ClaimState::Held(_))
            && let Some(gateway) = self.requests.gateway()
        {
            self.carrying.begin_trial(gateway, self.requests.beat_lease(), &pace);
        }
        Ok(pace)
    }

    fn circumstances(&self, pace: Pace) -> Circumstances {
        let configured = self.requests.gateway().is_some() && self.options.renews();
        Circumstances {
            wanted: configured && self.carrying.wanted == Carrier::Gateway,
            carried: self.carrying.is_carried(),
            has_news: self.health_differs()
                || pace.lease_duration_seconds() != self.lease_duration_sent,
            has_rival: self.recheck_after.is_some() || self.rival.seen().is_some(),
        }
    }

    /// Renews the Lease. While that fails, beats through the gateway when a beat is due.
    async fn lease_or_gateway(
        &mut self,
        held: LeaseVersion,
        owner: &Owner,
        pace: Pace,
    ) -> Result<(), Failure> {
        match self.beat_twice(held.clone(), owner, pace).await {
            Ok(()) => {
                self.carrying.checked(&pace);
                if self.circumstances(pace).leaves_gateway() {
                    self.carrying.end();
                    (self.report)(&Event::Carrier(CarrierEvent::Changed(Carrier::Lease)));
                }
                Ok(())
            }
            Err(failure) => {
                if matches!(self.lease, ClaimState::Held(_)) && self.carrying.is_due(&pace) {
                    // Its own failure is not told: the one of the Lease is, and both are tried again.
                    if let Ok(Sent::Accepted) = self.carried_beat(&held, owner, pace, false).await {
                        self.last_success = Some(Instant::now());
                    }
                }
                Err(failure)
            }
        }
    }

    /// Beats through a gateway. A new health interrupts it, if `interruptible`.
    async fn carried_beat(
        &mut self,
        held: &LeaseVersion,
        owner: &Owner,
        pace: Pace,
        interruptible: bool,
    ) -> Result<Sent, Failure> {
        let Some(gateway) = self.requests.gateway().cloned() else { return Ok(Sent::Interrupted) };
        let (at, sent) = (Timestamp::now(), Instant::now());
        let answer = {
            // A copy, so that the change is seen by the loop as well.
            let mut health = self.health.clone();
            let changed = async {
                while !interruptible || !self.health_differs() {
                    if health.changed().await.is_err() {
                        return std::future::pending().await;
                    }
                }
            };
            let lease = self.requests.beat_lease();
            tokio::select! {
                biased;
                answer = gateway.beat(lease, true, pace.request_timeout()) => answer,
                () = changed => return Ok(Sent::Interrupted),
            }
        };
        match answer {
            Ok(told) => {
                self.report_beat(at, sent, Carrier::Gateway);
                self.follow_gateway(told, &pace);
                Ok(Sent::Accepted)
            }
            Err(refusal) if refusal.is_final() => {
                let failure = self.not_carried(refusal);
                (self.report)(&Event::Carrier(CarrierEvent::Refused(failure)));
                self.carrying.end();
                self.resolve_refusal(held.clone(), owner, pace).await?;
                Ok(Sent::Accepted)
            }
            Err(refusal) => {
                self.carrying.unavailable();
                Err(self.not_carried(refusal))
            }
        }
    }

    /// Learns whether a gateway carries this instance, if that is known by now.
    fn end_trial(&mut self, pace: Pace) {
        let Some(trial) = self.carrying.trial.take_if(|trial| trial.is_finished()) else { return };
        let ended =
            || Refusal { cause: Cause::Panicked, retry_after: None, details: String::new() };
        match trial.now_or_never().and_then(Result::ok).unwrap_or_else(|| Err(ended())) {
            Ok(told) => {
                self.follow_gateway(told, &pace);
                (self.report)(&Event::Carrier(CarrierEvent::Changed(Carrier::Gateway)));
            }
            Err(refusal) => {
                if self.carrying.trial_failed(&refusal, &pace) {
                    let failure = self.not_carried(refusal);
                    (self.report)(&Event::Carrier(CarrierEvent::NotYet(failure)));
                }
            }
        }
    }

    /// Follows the pace in the answer of a gateway. One that makes no sense is not followed.
    fn follow_gateway(&mut self, told: CarriedBeat, pace: &Pace) {
        let Some(CarriedBeat { ttl, interval }) = self.carrying.accepted(told, pace) else {
            return;
        };
        if let Ok(pace) = Pace::new(ttl, interval, self.options.wanted()) {
            self.follow_pace(pace);
        }
    }

    /// Beats at this pace from now on.
    pub(super) fn follow_pace(&mut self, pace: Pace) {
        if self.pace.replace(pace) != Some(pace) {
            (self.report)(&Event::PaceChanged(pace));
            self.options.warnings(pace).iter().for_each(|warning| (self.report)(warning));
        }
    }

    /// Follows what the registration says about the way of beats. Returns whether it says something else than before.
    pub(super) fn follow_carrier(&mut self, carrier: Carrier) -> bool {
        let changed = self.carrying.want(carrier);
        if changed && carrier == Carrier::Gateway && self.requests.gateway().is_none() {
            let registration = self.requests.registration_object();
            let names = self.options.gateway_names;
            (self.report)(&Event::Carrier(CarrierEvent::NoGateway { registration, names }));
        }
        changed
    }

    fn not_carried(&self, refusal: Refusal) -> Failure {
        let Refusal { cause, retry_after, details } = refusal;
        let lease = self.requests.lease_object();
        Failure { retry_after, details, ..Failure::found(Operation::CarriedBeat, &lease, cause) }
    }

    /// Reads the Lease now and then, and finds out what others have done to it. A read that fails changes nothing: a
    /// gateway has just accepted a beat.
    async fn check_lease(&mut self, owner: &Owner, pace: Pace) -> Result<(), Failure> {
        let ClaimState::Held(held) = &self.lease else { return Ok(()) };
        if !self.carrying.is_carried() || !self.carrying.takes_check(&pace) {
            return Ok(());
        }
        let held = held.clone();
        let lease = match self.requests.lease(pace.request_timeout()).await {
            Ok(lease) => lease,
            Err(failure) => {
                (self.report)(&Event::RereadFailed(failure));
                return Ok(());
            }
        };
        self.carrying.checked(&pace);
        match lease {
            Some(lease) if self.is_as_claimed(&lease, &held, owner) => {
                self.times.advance_past(renewed(&lease));
                self.lease = ClaimState::Held(LeaseVersion::of(&lease));
                self.note_rival(&lease, false, pace);
                self.record_foreign_fields(&lease);
                Ok(())
            }
            lease => {
                self.carrying.end();
                self.resolve_change(lease, held, owner, pace).await
            }
        }
    }

    /// Whether a beat that renews this Lease would be accepted: it tests the same.
    fn is_as_claimed(&self, lease: &Lease, held: &LeaseVersion, owner: &Owner) -> bool {
        let now = LeaseVersion::of(lease);
        let transitions = held.transitions.is_none() || now.transitions == held.transitions;
        self.identity.still_owns(lease, &held.uid)
            && matches!(self.identity.classify(lease, owner), Existing::Ours { .. })
            && transitions
            && rival::claims_the_same(&self.identity, lease)
            && (renewed(lease).is_none() || self.written.contains(renewed(lease)))
    }
}

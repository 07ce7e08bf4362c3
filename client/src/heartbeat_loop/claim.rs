//! The steps of the loop: they claim the Lease and renew it.

use beatkeeper_api::{
    Carrier,
    heartbeat::{self, NOTE_MAX},
    text::plain_cut,
};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Preconditions;
use tokio::time::Instant;

use super::{
    other_holder::OtherHolder,
    reread::{Terms, read_terms},
    state::{ClaimState, HeartbeatLoop},
};
use crate::{
    event::{Acquisition, Event},
    failure::{Cause, Failure, Operation},
    lease::{
        Beat, Existing, HealthReport, LeaseChange, LeaseVersion, Location, Occupant, Owner,
        foreign_fields::ForeignFields, lease_change, renewed, rival,
    },
    requests::TIMEOUT_UNKNOWN,
    schedule::Pace,
    silence::SilenceWatch,
};

/// The number of our beats between two checks whether another process, without a claim of its own, still
/// beats under our claim.
const RECHECK_AFTER: u32 = 10;

impl HeartbeatLoop {
    /// Does the next step. A success means that a beat was accepted or, if another process has claimed the
    /// Lease, that a beat was seen.
    pub(super) async fn step(&mut self) -> Result<Pace, Failure> {
        let pace = match self.pace {
            Some(pace) => pace,
            None => {
                let Terms { pace, carrier } =
                    read_terms(&self.requests, self.options, TIMEOUT_UNKNOWN).await?;
                self.follow_carrier(carrier);
                self.options.warnings(pace).iter().for_each(|warning| (self.report)(warning));
                *self.pace.insert(pace)
            }
        };
        let owner = match &self.owner {
            Some(owner) => owner.clone(),
            None => {
                let owner = self.read_owner(pace).await?;
                self.owner.insert(owner).clone()
            }
        };
        if let ClaimState::Held(held) = &self.lease {
            let held = held.clone();
            return self.renew(held, &owner, pace).await;
        }
        // After a new claim, a gateway has to accept a beat before the Lease is not renewed any more.
        self.carrying.end();
        match &self.lease {
            ClaimState::TakenOver(holder) => {
                let holder = holder.clone();
                self.follow_holder(*holder, &owner, pace).await?;
            }
            _ => self.claim(&owner, pace).await?,
        }
        Ok(pace)
    }

    /// Renews the Lease.
    pub(super) async fn beat_twice(
        &mut self,
        held: LeaseVersion,
        owner: &Owner,
        pace: Pace,
    ) -> Result<(), Failure> {
        self.beat(held, owner, pace).await?;
        // A health that was refused, because the Lease was edited meanwhile, goes out now: by now it is known what the
        // edit has set.
        if let ClaimState::Held(held) = &self.lease
            && self.health_differs()
        {
            let held = held.clone();
            self.beat(held, owner, pace).await?;
        }
        Ok(())
    }

    async fn read_owner(&self, pace: Pace) -> Result<Owner, Failure> {
        Ok(match &self.identity.home {
            Location::Outside(_) => Owner::Outside,
            Location::Pod(name) => Owner::Pod {
                uid: self.requests.pod_uid(name, pace.request_timeout()).await?,
                name: name.clone(),
            },
        })
    }

    pub(super) async fn claim(&mut self, owner: &Owner, pace: Pace) -> Result<(), Failure> {
        let limit = pace.request_timeout();
        let mut health_report = self.health.borrow_and_update().clone();
        self.from_earlier_process = false;
        let existing = self.requests.lease(limit).await?;
        let judged = existing.as_ref().map(|lease| self.identity.classify(lease, owner));
        self.foreign = ForeignFields::default();
        if !matches!(judged, Some(Existing::Occupied(_))) {
            self.occupied = None;
        }
        let (how, lease) = match judged {
            Some(Existing::Ours { held, renewed }) => {
                if let Some(from_earlier_process) =
                    existing.as_ref().and_then(HealthReport::from_earlier_process)
                    && health_report.provisional
                    && self.is_recent(renewed, pace)
                {
                    health_report = from_earlier_process;
                    self.from_earlier_process = true;
                }
                self.times.advance_past(renewed);
                self.foreign = existing.as_ref().map(ForeignFields::on).unwrap_or_default();
                (Acquisition::TakenOver, self.take_over(&held, &health_report, pace).await?)
            }
            Some(Existing::Occupied(occupant)) => {
                let lease = existing.as_ref().filter(|_| occupant == Occupant::Outside);
                let Some(left) = lease.and_then(|lease| self.stale_lease(lease, pace)) else {
                    let lease = self.requests.lease_object();
                    let cause = Cause::Occupied(occupant);
                    return Err(Failure::found(Operation::CreateLease, &lease, cause));
                };
                self.requests.delete(Operation::ReplaceLease, left, limit).await?;
                (Acquisition::Replaced, self.create(owner, &health_report, pace).await?)
            }
            Some(Existing::EarlierPod { uid }) => {
                let that = Preconditions { uid: Some(uid), resource_version: None };
                self.requests.delete(Operation::ReplaceLease, that, limit).await?;
                (Acquisition::Replaced, self.create(owner, &health_report, pace).await?)
            }
            None => (Acquisition::Created, self.create(owner, &health_report, pace).await?),
        };
        self.record_claim(&lease, health_report, how, pace);
        Ok(())
    }

    /// Records that the Lease is ours and has had a beat.
    pub(super) fn record_claim(
        &mut self,
        lease: &Lease,
        health_report: HealthReport,
        how: Acquisition,
        pace: Pace,
    ) {
        self.times.advance_past(renewed(lease));
        self.written.accepted(renewed(lease));
        self.lease = ClaimState::Held(LeaseVersion::of(lease));
        self.lease_duration_sent = pace.lease_duration_seconds();
        self.reported = health_report;
        self.rival = SilenceWatch::begin(None, Instant::now());
        (self.report)(&Event::Claimed {
            registration: self.requests.registration_object(),
            instance: self.identity.instance.clone(),
            pace,
            how,
        });
    }

    /// Whether a beat was written less than a ttl ago, either by this machine's clock, which usually is the
    /// clock of the earlier process too, or by the API server's clock.
    fn is_recent(&self, renewed: Option<Timestamp>, pace: Pace) -> bool {
        let Some(renewed) = renewed else { return false };
        // The renewTime of an instance that a gateway carries says nothing. What its Lease says of its health does.
        if self.carrying.possible {
            return true;
        }
        let age = Timestamp::now().duration_since(renewed).as_secs_f64();
        let corrected = self.requests.clock_ahead().map_or(age, |ahead| age - ahead as f64);
        let ttl = pace.ttl().as_secs_f64();
        age.abs() < ttl || corrected.abs() < ttl
    }

    /// Recognises a Lease with the name of our Pod and without an owner that receives no beats any more: a
    /// copy that was restored without its owner, or the Lease of a machine that is gone. Returns its version
    /// in that case.
    fn stale_lease(&mut self, lease: &Lease, pace: Pace) -> Option<Preconditions> {
        // It may beat through a gateway. Then its Lease says nothing about it.
        if self.carrying.possible {
            return None;
        }
        let labelled = heartbeat::registration_of(lease) == Some(&self.identity.registration);
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        if !labelled || holder != Some(&self.identity.instance) {
            return None;
        }
        let (sign, now) = (rival::liveness_text(lease), Instant::now());
        let silence = self.occupied.get_or_insert_with(|| SilenceWatch::begin(sign.clone(), now));
        silence.look(sign, now, &pace);
        let LeaseVersion { uid, version, .. } = LeaseVersion::of(lease);
        let that = Preconditions { uid: Some(uid), resource_version: Some(version) };
        silence.is_over(now, &pace).then_some(that)
    }

    pub(super) async fn take_over(
        &mut self,
        held: &LeaseVersion,
        health_report: &HealthReport,
        pace: Pace,
    ) -> Result<Lease, Failure> {
        let at = self.times.next(Timestamp::now());
        let (seconds, incarnation) = (pace.lease_duration_seconds(), rival::incarnation());
        let patch = self.identity.take_over_patch(held, seconds, health_report, &incarnation, at);
        let patch = patch.without(self.foreign);
        self.incarnation = incarnation;
        self.lease = ClaimState::Unknown;
        self.written.sending(at);
        let limit = pace.request_timeout();
        let lease = self.requests.patch(Operation::TakeOverLease, &patch, limit).await?;
        self.times.accepted(at, renewed(&lease));
        Ok(lease)
    }

    async fn create(
        &mut self,
        owner: &Owner,
        health_report: &HealthReport,
        pace: Pace,
    ) -> Result<Lease, Failure> {
        let at = self.times.next(Timestamp::now());
        let seconds = pace.lease_duration_seconds();
        let lease = self.identity.new_lease(owner, seconds, health_report, &self.incarnation, at);
        self.lease = ClaimState::Unknown;
        self.written.sending(at);
        let lease = self.requests.create(&lease, pace.request_timeout()).await?;
        self.times.accepted(at, renewed(&lease));
        Ok(lease)
    }

    async fn beat(&mut self, held: LeaseVersion, owner: &Owner, pace: Pace) -> Result<(), Failure> {
        let at = self.times.next(Timestamp::now());
        let seconds = pace.lease_duration_seconds();
        let news = self.health_differs();
        let health_report = self.health.borrow_and_update().clone();
        let forget_rival = self.rival.seen().is_some() && self.rival.is_over(Instant::now(), &pace);
        let alone = self.recheck_after.is_none_or(|left| left == 0) && self.rival.seen().is_none();
        let beat = Beat {
            at,
            after: self.written.expected().filter(|_| alone),
            seconds: (seconds != self.lease_duration_sent).then_some(seconds),
            health_report: news.then_some(&health_report),
            forget_rival,
        };
        let patch = self.identity.beat_patch(&held, &beat).without(self.foreign);
        let tested = beat.after.is_some();
        self.written.sending(at);
        let sent = Instant::now();
        match self.requests.patch(Operation::Beat, &patch, pace.request_timeout()).await {
            Ok(lease) if self.identity.still_owns(&lease, &held.uid) => {
                self.times.accepted(at, renewed(&lease));
                self.written.accepted(renewed(&lease));
                self.recheck_after =
                    self.recheck_after.filter(|_| !tested).map(|n| n.saturating_sub(1));
                self.lease_duration_sent = seconds;
                self.note_rival(&lease, forget_rival, pace);
                self.lease = ClaimState::Held(LeaseVersion::of(&lease));
                self.report_beat(at, sent, Carrier::Lease);
                if news {
                    (self.report)(&Event::HealthReported(health_report.clone()));
                    self.reported = health_report;
                    self.from_earlier_process = false;
                }
                self.record_foreign_fields(&lease);
                return Ok(());
            }
            Ok(_) => {}
            Err(failure) if failure.cause == Cause::Missing => {}
            Err(failure) if failure.cause == Cause::Overtaken => {
                self.written.refused(at);
                return self.resolve_refusal(held, owner, pace).await;
            }
            Err(failure) => return Err(failure),
        }
        self.reclaim_lost(owner, pace).await
    }

    /// Records what our Lease says about the instance. A part that is ours to set, and is missing there, goes
    /// out with the next beat.
    pub(super) fn record_foreign_fields(&mut self, lease: &Lease) {
        self.foreign = ForeignFields::on(lease);
        self.reported = self.foreign.reported(lease, &self.reported);
    }

    /// Handles a Lease that is not ours any more and that no other process owns.
    pub(super) async fn reclaim_lost(&mut self, owner: &Owner, pace: Pace) -> Result<(), Failure> {
        self.lease = ClaimState::Unknown;
        (self.report)(&Event::LeaseLost { lease: self.requests.lease_object() });
        self.claim(owner, pace).await
    }

    /// Finds out why a beat was refused: the Lease has changed since our last read or write.
    pub(super) async fn resolve_refusal(
        &mut self,
        held: LeaseVersion,
        owner: &Owner,
        pace: Pace,
    ) -> Result<(), Failure> {
        let lease = self.requests.lease(pace.request_timeout()).await?;
        self.resolve_change(lease, held, owner, pace).await
    }

    /// Follows a change of the Lease, which was just read.
    pub(super) async fn resolve_change(
        &mut self,
        lease: Option<Lease>,
        held: LeaseVersion,
        owner: &Owner,
        pace: Pace,
    ) -> Result<(), Failure> {
        let Some(lease) = lease else { return self.reclaim_lost(owner, pace).await };
        if !matches!(self.identity.classify(&lease, owner), Existing::Ours { .. }) {
            return self.reclaim_lost(owner, pace).await;
        }
        self.times.advance_past(renewed(&lease));
        match lease_change(&self.identity, &held, &self.written, &lease) {
            LeaseChange::Claimed => {
                self.record_takeover(&lease);
                Ok(())
            }
            LeaseChange::BeatenByAnother => {
                if self.recheck_after.replace(RECHECK_AFTER).is_none() {
                    (self.report)(&Event::UnclaimedBeat { lease: self.requests.lease_object() });
                }
                self.reclaim(&lease, pace).await
            }
            LeaseChange::Edited => self.reclaim(&lease, pace).await,
            // Every write since then is lost.
            LeaseChange::RolledBack => self.reclaim_lost(owner, pace).await,
        }
    }

    /// Makes the claim anew, so that it differs from the claim of a process that has a copy of the old one.
    async fn reclaim(&mut self, lease: &Lease, pace: Pace) -> Result<(), Failure> {
        let (at, incarnation) = (self.times.next(Timestamp::now()), rival::incarnation());
        let patch = self.identity.reclaim_patch(&LeaseVersion::of(lease), &incarnation, at);
        self.incarnation = incarnation;
        self.written.sending(at);
        let (limit, sent) = (pace.request_timeout(), Instant::now());
        let lease = self.requests.patch(Operation::TakeOverLease, &patch, limit).await?;
        self.times.accepted(at, renewed(&lease));
        self.written.accepted(renewed(&lease));
        self.report_beat(at, sent, Carrier::Lease);
        self.lease = ClaimState::Held(LeaseVersion::of(&lease));
        self.record_foreign_fields(&lease);
        Ok(())
    }

    /// Follows the note of a rival in our Lease.
    pub(super) fn note_rival(&mut self, lease: &Lease, forgotten: bool, pace: Pace) {
        let (note, now) = (rival::rival_note(lease).map(str::to_owned), Instant::now());
        match (self.rival.seen().is_some(), note) {
            (false, Some(note)) => {
                (self.report)(&Event::Rival {
                    lease: self.requests.lease_object(),
                    note: plain_cut(&note, NOTE_MAX),
                });
                self.rival = SilenceWatch::begin(Some(note), now);
            }
            (true, Some(note)) if !forgotten => self.rival.look(Some(note), now, &pace),
            _ => self.rival = SilenceWatch::begin(None, now),
        }
    }

    /// Records that another process has claimed the Lease.
    fn record_takeover(&mut self, lease: &Lease) {
        let holder = OtherHolder::to(&self.identity, lease);
        (self.report)(&Event::TakenOverByOther {
            lease: self.requests.lease_object(),
            other_addresses: holder.other_addresses.clone(),
        });
        self.lease = ClaimState::TakenOver(Box::new(holder));
    }
}

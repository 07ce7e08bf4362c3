//! The requests of a heart, one after the other: they claim the Lease, renew it, and give it back.

use std::time::Duration;

use beatkeeper_api::{
    heartbeat::{self, NOTE_MAX},
    text::plain_cut,
};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Preconditions;
use tokio::time::{Instant, sleep};

use super::{Claim, Heart, TIMEOUT_UNKNOWN, passed::Passed, read_pace};
use crate::event::{Event, How};
use crate::failure::{Cause, Failure, Operation};
use crate::fence::Beat;
use crate::lease::{Existing, Held, Home, Occupant, Owner, Word, renewed};
use crate::others::Others;
use crate::rival::{self, Became, Vigil};
use crate::schedule::{Backoff, Pace, Room};

/// How long all tries of deregistering together may take: a Pod that is being deleted has 30 s.
const DEREGISTER_WITHIN: Duration = Duration::from_secs(5);
/// The number of our beats between two checks whether another process, without a claim of its own, still
/// beats under our claim.
const ASK_AGAIN_AFTER: u32 = 10;

impl Heart {
    /// Does the next step. A success means that a beat was accepted or, if another process has claimed the
    /// Lease, that a beat was seen.
    pub(super) async fn step(&mut self) -> Result<Pace, Failure> {
        let pace = match self.pace {
            Some(pace) => pace,
            None => {
                let pace = read_pace(&self.requests, self.wishes, TIMEOUT_UNKNOWN).await?;
                self.wishes.warnings(pace).iter().for_each(|warning| (self.report)(warning));
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
        match &self.lease {
            Claim::Held(held) => {
                let held = held.clone();
                self.beat(held, &owner, pace).await?;
            }
            Claim::Passed(passed) => {
                let passed = passed.clone();
                self.follow(*passed, &owner, pace).await?;
            }
            Claim::None | Claim::Unsure => self.claim(&owner, pace).await?,
        }
        Ok(pace)
    }

    async fn read_owner(&self, pace: Pace) -> Result<Owner, Failure> {
        Ok(match &self.identity.home {
            Home::Outside(_) => Owner::Outside,
            Home::Pod(name) => Owner::Pod {
                uid: self.requests.pod_uid(name, pace.request_timeout()).await?,
                name: name.clone(),
            },
        })
    }

    pub(super) async fn claim(&mut self, owner: &Owner, pace: Pace) -> Result<(), Failure> {
        let limit = pace.request_timeout();
        let mut word = self.words.borrow_and_update().clone();
        self.kept = false;
        let existing = self.requests.lease(limit).await?;
        let judged = existing.as_ref().map(|lease| self.identity.judge(lease, owner));
        self.others = Others::default();
        if !matches!(judged, Some(Existing::Occupied(_))) {
            self.occupied = None;
        }
        let (how, lease) = match judged {
            Some(Existing::Ours { held, renewed }) => {
                if let Some(kept) = existing.as_ref().and_then(Word::kept)
                    && word.provisional
                    && self.is_recent(renewed, pace)
                {
                    word = kept;
                    self.kept = true;
                }
                self.times.advance_past(renewed);
                self.others = existing.as_ref().map(Others::on).unwrap_or_default();
                (How::TakenOver, self.take_over(&held, &word, pace).await?)
            }
            Some(Existing::Occupied(occupant)) => {
                let lease = existing.as_ref().filter(|_| occupant == Occupant::Outside);
                let Some(left) = lease.and_then(|lease| self.left_behind(lease, pace)) else {
                    let lease = self.requests.lease_object();
                    let cause = Cause::Occupied(occupant);
                    return Err(Failure::found(Operation::CreateLease, &lease, cause));
                };
                self.requests.delete(Operation::ReplaceLease, left, limit).await?;
                (How::Replaced, self.create(owner, &word, pace).await?)
            }
            Some(Existing::EarlierPod { uid }) => {
                let that = Preconditions { uid: Some(uid), resource_version: None };
                self.requests.delete(Operation::ReplaceLease, that, limit).await?;
                (How::Replaced, self.create(owner, &word, pace).await?)
            }
            None => (How::Created, self.create(owner, &word, pace).await?),
        };
        self.is_ours(&lease, word, how, pace);
        Ok(())
    }

    /// Records that the Lease is ours and has had a beat.
    pub(super) fn is_ours(&mut self, lease: &Lease, word: Word, how: How, pace: Pace) {
        self.times.advance_past(renewed(lease));
        self.written.accepted(renewed(lease));
        self.lease = Claim::Held(Held::of(lease));
        self.lease_duration_sent = pace.lease_duration_seconds();
        self.told = word;
        self.rival = Vigil::begin(None, Instant::now());
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
        let age = Timestamp::now().duration_since(renewed).as_secs_f64();
        let corrected = self.requests.clock_ahead().map_or(age, |ahead| age - ahead as f64);
        let ttl = pace.ttl().as_secs_f64();
        age.abs() < ttl || corrected.abs() < ttl
    }

    /// Recognises a Lease with the name of our Pod and without an owner that receives no beats any more: a
    /// copy that was restored without its owner, or the Lease of a machine that is gone. Returns its version
    /// in that case.
    fn left_behind(&mut self, lease: &Lease, pace: Pace) -> Option<Preconditions> {
        let labelled = heartbeat::registration_of(lease) == Some(&self.identity.registration);
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        if !labelled || holder != Some(&self.identity.instance) {
            return None;
        }
        let (sign, now) = (rival::sign_of_life(lease), Instant::now());
        let vigil = self.occupied.get_or_insert_with(|| Vigil::begin(sign.clone(), now));
        vigil.look(sign, now, &pace);
        let Held { uid, version, .. } = Held::of(lease);
        let that = Preconditions { uid: Some(uid), resource_version: Some(version) };
        vigil.is_over(now, &pace).then_some(that)
    }

    pub(super) async fn take_over(
        &mut self,
        held: &Held,
        word: &Word,
        pace: Pace,
    ) -> Result<Lease, Failure> {
        let at = self.times.next(Timestamp::now());
        let (seconds, incarnation) = (pace.lease_duration_seconds(), rival::incarnation());
        let patch = self.identity.take_over_patch(held, seconds, word, &incarnation, at);
        let patch = patch.sparing(self.others);
        self.incarnation = incarnation;
        self.lease = Claim::Unsure;
        self.written.sending(at);
        let limit = pace.request_timeout();
        let lease = self.requests.patch(Operation::TakeOverLease, &patch, limit).await?;
        self.times.accepted(at, renewed(&lease));
        Ok(lease)
    }

    async fn create(&mut self, owner: &Owner, word: &Word, pace: Pace) -> Result<Lease, Failure> {
        let at = self.times.next(Timestamp::now());
        let seconds = pace.lease_duration_seconds();
        let lease = self.identity.new_lease(owner, seconds, word, &self.incarnation, at);
        self.lease = Claim::Unsure;
        self.written.sending(at);
        let lease = self.requests.create(&lease, pace.request_timeout()).await?;
        self.times.accepted(at, renewed(&lease));
        Ok(lease)
    }

    async fn beat(&mut self, held: Held, owner: &Owner, pace: Pace) -> Result<(), Failure> {
        let at = self.times.next(Timestamp::now());
        let seconds = pace.lease_duration_seconds();
        let news = self.has_news();
        let word = self.words.borrow_and_update().clone();
        let forget_rival = self.rival.seen().is_some() && self.rival.is_over(Instant::now(), &pace);
        let alone = self.beats_beside.is_none_or(|left| left == 0) && self.rival.seen().is_none();
        let beat = Beat {
            at,
            after: self.written.expected().filter(|_| alone),
            seconds: (seconds != self.lease_duration_sent).then_some(seconds),
            word: news.then_some(&word),
            forget_rival,
        };
        let patch = self.identity.beat_patch(&held, &beat).sparing(self.others);
        let tested = beat.after.is_some();
        self.written.sending(at);
        let sent = Instant::now();
        match self.requests.patch(Operation::Beat, &patch, pace.request_timeout()).await {
            Ok(lease) if self.identity.is_ours_still(&lease, &held.uid) => {
                self.times.accepted(at, renewed(&lease));
                self.written.accepted(renewed(&lease));
                self.beats_beside =
                    self.beats_beside.filter(|_| !tested).map(|n| n.saturating_sub(1));
                self.lease_duration_sent = seconds;
                self.note_rival(&lease, forget_rival, pace);
                self.lease = Claim::Held(Held::of(&lease));
                (self.report)(&Event::Beat { at, took: sent.elapsed() });
                if news {
                    (self.report)(&Event::Told(word.clone()));
                    self.told = word;
                    self.kept = false;
                }
                self.note_others(&lease);
                return Ok(());
            }
            Ok(_) => {}
            Err(failure) if failure.cause == Cause::Missing => {}
            Err(failure) if failure.cause == Cause::Overtaken => {
                self.written.refused(at);
                return self.find_out(held, owner, pace).await;
            }
            Err(failure) => return Err(failure),
        }
        self.lose(owner, pace).await
    }

    /// Records what our Lease says about the instance. A part that is ours to set, and is missing there, goes
    /// out with the next beat.
    fn note_others(&mut self, lease: &Lease) {
        self.others = Others::on(lease);
        self.told = self.others.told(lease, &self.told);
    }

    /// Handles a Lease that is not ours any more and that no other process owns.
    pub(super) async fn lose(&mut self, owner: &Owner, pace: Pace) -> Result<(), Failure> {
        self.lease = Claim::Unsure;
        (self.report)(&Event::Lost { lease: self.requests.lease_object() });
        self.claim(owner, pace).await
    }

    /// Finds out why a beat was refused: the Lease has changed since our last read or write.
    async fn find_out(&mut self, held: Held, owner: &Owner, pace: Pace) -> Result<(), Failure> {
        let limit = pace.request_timeout();
        let Some(lease) = self.requests.lease(limit).await? else {
            return self.lose(owner, pace).await;
        };
        if !matches!(self.identity.judge(&lease, owner), Existing::Ours { .. }) {
            return self.lose(owner, pace).await;
        }
        self.times.advance_past(renewed(&lease));
        match rival::became(&self.identity, &held, &self.written, &lease) {
            Became::Claimed => {
                self.pass_on(&lease);
                Ok(())
            }
            Became::BeatenByAnother => {
                if self.beats_beside.replace(ASK_AGAIN_AFTER).is_none() {
                    (self.report)(&Event::BeatenBeside { lease: self.requests.lease_object() });
                }
                self.reclaim(&lease, pace).await
            }
            Became::Edited => self.reclaim(&lease, pace).await,
            // Every write since then is lost.
            Became::GoneBack => self.lose(owner, pace).await,
        }
    }

    /// Makes the claim anew, so that it differs from the claim of a process that has a copy of the old one.
    async fn reclaim(&mut self, lease: &Lease, pace: Pace) -> Result<(), Failure> {
        let (at, incarnation) = (self.times.next(Timestamp::now()), rival::incarnation());
        let patch = self.identity.reclaim_patch(&Held::of(lease), &incarnation, at);
        self.incarnation = incarnation;
        self.written.sending(at);
        let limit = pace.request_timeout();
        let lease = self.requests.patch(Operation::TakeOverLease, &patch, limit).await?;
        self.times.accepted(at, renewed(&lease));
        self.written.accepted(renewed(&lease));
        self.lease = Claim::Held(Held::of(&lease));
        Ok(())
    }

    /// Follows the note of a rival in our Lease.
    fn note_rival(&mut self, lease: &Lease, forgotten: bool, pace: Pace) {
        let (note, now) = (rival::rival_note(lease).map(str::to_owned), Instant::now());
        match (self.rival.seen().is_some(), note) {
            (false, Some(note)) => {
                (self.report)(&Event::Rival {
                    lease: self.requests.lease_object(),
                    note: plain_cut(&note, NOTE_MAX),
                });
                self.rival = Vigil::begin(Some(note), now);
            }
            (true, Some(note)) if !forgotten => self.rival.look(Some(note), now, &pace),
            _ => self.rival = Vigil::begin(None, now),
        }
    }

    /// Records that another process has claimed the Lease.
    fn pass_on(&mut self, lease: &Lease) {
        let passed = Passed::to(&self.identity, lease);
        (self.report)(&Event::PassedOn {
            lease: self.requests.lease_object(),
            instead: passed.instead.clone(),
        });
        self.lease = Claim::Passed(Box::new(passed));
    }

    /// Deletes the Lease, with retries, within [`DEREGISTER_WITHIN`].
    pub(super) async fn deregister(&mut self) -> Result<Event, Failure> {
        let end = Instant::now() + DEREGISTER_WITHIN;
        let mut backoff = Backoff::default();
        loop {
            let limit = self.pace.map_or(TIMEOUT_UNKNOWN, |pace| pace.request_timeout());
            let left = end.saturating_duration_since(Instant::now());
            match self.try_deregister(limit.min(left)).await {
                Ok(event) => return Ok(event),
                Err(failure) => {
                    let left = end.saturating_duration_since(Instant::now());
                    let room = Room::until(left, self.pace.as_ref());
                    let pause = backoff.pause(room, failure.retry_after, rand::random());
                    // A missing permission will not be added within five seconds.
                    if failure.cause == Cause::MissingRule || Instant::now() + pause >= end {
                        return Err(failure);
                    }
                    sleep(pause).await;
                }
            }
        }
    }

    async fn try_deregister(&mut self, limit: Duration) -> Result<Event, Failure> {
        if let Claim::Unsure = self.lease {
            self.look(limit).await?;
        }
        let lease = self.requests.lease_object();
        let that = match &self.lease {
            Claim::Passed(passed) => {
                let passed = passed.clone();
                self.withdraw(&passed, limit).await;
                return Ok(Event::LeftToAnother { lease });
            }
            Claim::Held(Held { uid, version, .. }) => {
                Preconditions { uid: Some(uid.clone()), resource_version: Some(version.clone()) }
            }
            Claim::None | Claim::Unsure => return Ok(Event::NeverRegistered),
        };
        match self.requests.delete(Operation::Deregister, that, limit).await {
            Ok(true) => Ok(Event::Deregistered { lease }),
            Ok(false) => Ok(Event::NeverRegistered),
            Err(failure) => {
                if failure.cause == Cause::Conflict {
                    // The Lease was written since our last beat, by another process or by a person who set an
                    // annotation.
                    self.look(limit).await?;
                }
                Err(failure)
            }
        }
    }

    /// Finds out what has become of the Lease since the last answer that we received.
    async fn look(&mut self, limit: Duration) -> Result<(), Failure> {
        let owner = self.owner.as_ref().unwrap_or(&Owner::Outside);
        let found = self.requests.lease(limit).await?;
        let judged = found.as_ref().map(|lease| self.identity.judge(lease, owner));
        let (Some(lease), Some(Existing::Ours { held, renewed })) = (found, judged) else {
            self.lease = Claim::None;
            return Ok(());
        };
        let passed = match &self.lease {
            Claim::Held(before) => before.has_passed_to(&held),
            // The Lease is ours if it holds our last write.
            Claim::None | Claim::Unsure | Claim::Passed(_) => !self.written.contains(renewed),
        };
        self.lease = match passed {
            false => Claim::Held(held),
            true => Claim::Passed(Box::new(Passed::to(&self.identity, &lease))),
        };
        Ok(())
    }
}

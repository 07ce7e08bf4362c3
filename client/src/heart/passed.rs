//! A Lease that another process has claimed: two machines with one name, or two runs of one instance.
//!
//! The latest claim is published. A process with an earlier claim keeps beating only if both claim the same.
//! Otherwise it would keep an address published that is not its own. In that case it stands by, leaves a note
//! about itself for people, and claims the Lease again once the other process has been silent for a ttl.

use std::{collections::BTreeSet, time::Duration};

use beatkeeper_api::{heartbeat::NOTE_MAX, text::plain_cut};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use tokio::time::Instant;

use super::{Claim, Heart};
use crate::event::{Event, How};
use crate::failure::{Cause, Failure, Operation};
use crate::fence::SharedBeat;
use crate::lease::{Existing, Held, Identity, Owner, renewed};
use crate::others::{self, Others};
use crate::rival::{self, Vigil};
use crate::schedule::Pace;

/// The number of our beats between two checks whether a holder that claims the same still beats.
const ASK_AFTER: u32 = 3;

/// What is known of the process that holds the Lease, and what this process does beside it.
#[derive(Debug, Clone)]
pub(super) struct Passed {
    /// The Lease as it was last seen.
    held: Held,
    /// The addresses that the holder claims, made safe to print; `None` if they are the same as ours.
    pub(super) instead: Option<String>,
    /// Whether the holder still beats, where this process does not beat itself.
    vigil: Vigil,
    /// Since when only this process has beaten, where both beat.
    alone_since: Option<Instant>,
    /// The last beat of this process that was accepted, where both beat.
    beaten: Option<Timestamp>,
    /// The note about a rival in the Lease.
    note: Vigil,
    /// The note that this process wrote last.
    announced: Option<String>,
    /// Whether the Lease has annotations, to which a note can be added.
    annotated: bool,
    /// The incarnations that have beaten for the Lease. A beat of this process beside them hides that.
    beaten_by: BTreeSet<String>,
    /// What a person has set on the Lease: it stays when this process takes the Lease back.
    others: Others,
    /// How often the Lease was read.
    looks: u32,
}

impl Passed {
    /// Makes the record of a Lease that has just been seen.
    pub(super) fn to(identity: &Identity, lease: &Lease) -> Self {
        let now = Instant::now();
        Self {
            held: Held::of(lease),
            instead: instead(identity, lease),
            vigil: Vigil::begin(rival::sign_of_life(lease), now),
            alone_since: None,
            beaten: None,
            note: Vigil::begin(rival::rival_note(lease).map(str::to_owned), now),
            announced: None,
            annotated: lease.metadata.annotations.is_some(),
            beaten_by: others::beating(lease),
            others: Others::on(lease),
            looks: 0,
        }
    }

    /// Updates the record when the Lease is seen again.
    fn look(&mut self, identity: &Identity, lease: &Lease, now: Instant, pace: &Pace) {
        self.held = Held::of(lease);
        self.instead = instead(identity, lease);
        self.vigil.look(rival::sign_of_life(lease), now, pace);
        self.note.look(rival::rival_note(lease).map(str::to_owned), now, pace);
        self.annotated = lease.metadata.annotations.is_some();
        self.beaten_by.extend(others::beating(lease));
        self.others = Others::beside(lease, &self.beaten_by);
        self.looks = self.looks.saturating_add(1);
    }

    /// When the holder will have been silent for a ttl.
    pub(super) fn takes_back_at(&self, pace: &Pace) -> Option<Instant> {
        match (&self.instead, self.alone_since) {
            (Some(_), _) => Some(self.vigil.ends(pace)),
            (None, since) => since.map(|since| since + pace.ttl()),
        }
    }

    fn is_silent(&self, now: Instant, pace: &Pace) -> bool {
        match &self.instead {
            Some(_) => self.vigil.is_over(now, pace),
            None => self.alone_since.is_some_and(|since| now >= since + pace.ttl()),
        }
    }

    /// Whether to leave a note about this process. If one instance has two runs, the earlier one often ends
    /// soon, and that is no name conflict. The note has room for one rival only.
    fn announces(&self, now: Instant, pace: &Pace) -> bool {
        let stays = self.instead.is_some() || self.looks > 1;
        let taken = self.note.seen().is_some()
            && self.note.seen() != self.announced.as_deref()
            && !self.note.is_over(now, pace);
        stays && self.annotated && !taken
    }

    /// Whether the next shared beat finds out if the holder still beats.
    fn asks(&self) -> bool {
        self.alone_since.is_some() || self.looks.is_multiple_of(ASK_AFTER)
    }
}

fn instead(identity: &Identity, lease: &Lease) -> Option<String> {
    let named = || plain_cut(rival::named_addresses(lease).unwrap_or("no address"), NOTE_MAX);
    (!rival::claims_the_same(identity, lease)).then(named)
}

impl Heart {
    /// Beats beside the process that holds the Lease, or claims the Lease again.
    pub(super) async fn follow(
        &mut self,
        mut passed: Passed,
        owner: &Owner,
        pace: Pace,
    ) -> Result<(), Failure> {
        let now = Instant::now();
        if passed.is_silent(now, &pace) && self.take_back(&passed, pace).await? {
            return Ok(());
        }
        let announces = !self.wishes.shared && passed.announces(now, &pace);
        let at = self.times.next(Timestamp::now());
        let note = announces.then(|| rival::announcement(&self.identity, &self.incarnation, at));
        let seen = match passed.instead {
            None => self.beat_beside(&mut passed, at, note.as_deref(), pace).await?,
            Some(_) => self.look_at(&passed, note.as_deref(), pace).await?,
        };
        let Some(lease) = seen else { return self.lose(owner, pace).await };
        if !matches!(self.identity.judge(&lease, owner), Existing::Ours { .. }) {
            return self.lose(owner, pace).await;
        }
        self.times.advance_past(renewed(&lease));
        if self.written.contains(renewed(&lease)) {
            // We have claimed the Lease, and the answer to that request was lost.
            let word = self.words.borrow_and_update().clone();
            self.is_ours(&lease, word, How::TakenBack, pace);
            return Ok(());
        }
        let before = passed.instead.clone();
        passed.look(&self.identity, &lease, Instant::now(), &pace);
        if note.is_some() && rival::rival_note(&lease) == note.as_deref() {
            passed.announced = note;
        }
        if before != passed.instead {
            let lease = self.requests.lease_object();
            (self.report)(&Event::PassedOn { lease, instead: passed.instead.clone() });
        }
        // There is nothing to write: the holder reports the health of the instance.
        self.told = self.words.borrow_and_update().clone();
        self.lease = Claim::Passed(Box::new(passed));
        Ok(())
    }

    /// Claims the Lease again, if nothing was written since it was seen. Returns false if something was
    /// written.
    async fn take_back(&mut self, passed: &Passed, pace: Pace) -> Result<bool, Failure> {
        let word = self.words.borrow_and_update().clone();
        // The patch is refused if the Lease has changed since these values were read from it.
        self.others = passed.others;
        match self.take_over(&passed.held, &word, pace).await {
            Ok(lease) => {
                self.is_ours(&lease, word, How::TakenBack, pace);
                Ok(true)
            }
            Err(failure) => {
                self.lease = Claim::Passed(Box::new(passed.clone()));
                if failure.cause == Cause::Conflict { Ok(false) } else { Err(failure) }
            }
        }
    }

    /// Beats beside a holder that claims the same.
    async fn beat_beside(
        &mut self,
        passed: &mut Passed,
        at: Timestamp,
        rival: Option<&str>,
        pace: Pace,
    ) -> Result<Option<Lease>, Failure> {
        let (limit, sent) = (pace.request_timeout(), Instant::now());
        let after = passed.beaten.filter(|_| passed.asks());
        let patch = self.identity.shared_beat_patch(&passed.held, SharedBeat { at, after, rival });
        let first = self.requests.patch(Operation::Beat, &patch, limit).await;
        let answer = match first {
            Err(failure) if failure.cause == Cause::Overtaken && after.is_some() => {
                passed.alone_since = None;
                let beat = SharedBeat { at, after: None, rival };
                let patch = self.identity.shared_beat_patch(&passed.held, beat);
                self.requests.patch(Operation::Beat, &patch, limit).await
            }
            Ok(lease) => {
                passed.alone_since = after.and(passed.alone_since.or(Some(sent)));
                Ok(lease)
            }
            Err(failure) => Err(failure),
        };
        match answer {
            Ok(lease) => {
                self.times.accepted(at, renewed(&lease));
                passed.beaten = renewed(&lease);
                (self.report)(&Event::Beat { at, took: sent.elapsed() });
                Ok(Some(lease))
            }
            Err(failure) if failure.cause == Cause::Missing => Ok(None),
            // The Lease was claimed once more, with another address.
            Err(failure) if failure.cause == Cause::Overtaken => self.requests.lease(limit).await,
            Err(failure) => Err(failure),
        }
    }

    /// Reads a Lease that is published with other addresses, and adds a note about this process if there is
    /// room for one.
    async fn look_at(
        &mut self,
        passed: &Passed,
        note: Option<&str>,
        pace: Pace,
    ) -> Result<Option<Lease>, Failure> {
        let limit = pace.request_timeout();
        if note.is_none() {
            return self.requests.lease(limit).await;
        }
        let patch = self.identity.announcement_patch(&passed.held, note);
        match self.requests.patch(Operation::Beat, &patch, limit).await {
            Ok(lease) => Ok(Some(lease)),
            Err(failure) if failure.cause == Cause::Missing => Ok(None),
            // The Lease was deleted and created anew.
            Err(failure) if failure.cause == Cause::Conflict => self.requests.lease(limit).await,
            Err(failure) => Err(failure),
        }
    }

    /// Removes our note, if it is there. A note that stays is removed a ttl later anyway.
    pub(super) async fn withdraw(&mut self, passed: &Passed, limit: Duration) {
        if passed.announced.is_some() && passed.note.seen() == passed.announced.as_deref() {
            let patch = self.identity.announcement_patch(&passed.held, None);
            let _ = self.requests.patch(Operation::Beat, &patch, limit).await;
        }
    }
}

//! A Lease that another process has claimed: two machines with one name, or two lives of one instance.
//!
//! The claim that was made last is published. A process that claimed before it beats on only where both
//! claim the same: otherwise it would keep an address alive that is not its own. It stands by, leaves a note
//! about itself for people, and claims the Lease again once the other has been silent for a ttl.

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

/// Beside a holder that claims the same, every so many beats it is asked whether that still beats.
const ASK_AFTER: u32 = 3;

/// What is known of the process that holds the Lease, and what is done beside it.
#[derive(Debug, Clone)]
pub(super) struct Passed {
    /// The Lease as it was seen last.
    held: Held,
    /// The addresses that its holder claims, made fit to be printed; none where they are ours too.
    pub(super) instead: Option<String>,
    /// The life of the holder, where we do not beat ourselves.
    vigil: Vigil,
    /// Since when only we have beaten, where both do.
    alone_since: Option<Instant>,
    /// Our own beat that was accepted last, where both do.
    beaten: Option<Timestamp>,
    /// The note about a rival that is in the Lease.
    note: Vigil,
    /// The note that we wrote last.
    announced: Option<String>,
    /// Whether the Lease has annotations, to which a note can be added.
    annotated: bool,
    /// As which processes have beaten for it. Our own beats beside them hide that.
    beaten_by: BTreeSet<String>,
    /// What a person has set on it: it stays when we take it back.
    others: Others,
    /// How often it was looked at.
    looks: u32,
}

impl Passed {
    /// It has just been seen.
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

    /// It is seen again.
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

    /// When its holder will have been silent for a ttl.
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

    /// Whether to tell people of us. Of two lives of one instance the earlier one is often about to end, and
    /// no quarrel; and one note has room for one rival.
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
    /// Goes on beside the process that holds the Lease, or claims it again.
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
            // We have claimed it, and the answer was lost.
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
        // There is nothing to tell: what is said of the instance is the holder's.
        self.told = self.words.borrow_and_update().clone();
        self.lease = Claim::Passed(Box::new(passed));
        Ok(())
    }

    /// Claims the Lease again, if nothing was written since it was seen. False: something was.
    async fn take_back(&mut self, passed: &Passed, pace: Pace) -> Result<bool, Failure> {
        let word = self.words.borrow_and_update().clone();
        // The patch is refused if the Lease has changed since they were read off it.
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

    /// A beat beside a holder that claims the same.
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
            // It was claimed once more, with another address.
            Err(failure) if failure.cause == Cause::Overtaken => self.requests.lease(limit).await,
            Err(failure) => Err(failure),
        }
    }

    /// A look at a Lease that keeps something else alive, with a note about us if there is room for one.
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
            // It was made anew.
            Err(failure) if failure.cause == Cause::Conflict => self.requests.lease(limit).await,
            Err(failure) => Err(failure),
        }
    }

    /// Takes our note away, if it is there. It goes a ttl later anyway.
    pub(super) async fn withdraw(&mut self, passed: &Passed, limit: Duration) {
        if passed.announced.is_some() && passed.note.seen() == passed.announced.as_deref() {
            let patch = self.identity.announcement_patch(&passed.held, None);
            let _ = self.requests.patch(Operation::Beat, &patch, limit).await;
        }
    }
}

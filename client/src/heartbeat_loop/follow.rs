//! What to do while another process holds the Lease.
//!
//! The latest claim is published. A process with an earlier claim keeps beating only if both claim the same.
//! Otherwise it would keep an address published that is not its own. In that case it stands by, leaves a note
//! about itself for people, and claims the Lease again once the other process has been silent for a ttl.

use std::time::Duration;

use beatkeeper_api::Carrier;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use tokio::time::Instant;

use super::{
    other_holder::OtherHolder,
    state::{ClaimState, HeartbeatLoop},
};
use crate::{
    event::{Acquisition, Event},
    failure::{Cause, Failure, Operation},
    lease::{Existing, Owner, SharedBeat, renewed, rival},
    schedule::Pace,
};

impl HeartbeatLoop {
    /// Beats beside the process that holds the Lease, or claims the Lease again.
    pub(super) async fn follow_holder(
        &mut self,
        mut holder: OtherHolder,
        owner: &Owner,
        pace: Pace,
    ) -> Result<(), Failure> {
        let now = Instant::now();
        holder.may_be_carried = self.carrying.possible;
        if holder.is_silent(now, &pace) && self.take_back(&holder, pace).await? {
            return Ok(());
        }
        let leaves_note = !self.options.shared && holder.leaves_note(now, &pace);
        let at = self.times.next(Timestamp::now());
        let note = leaves_note.then(|| rival::announcement(&self.identity, &self.incarnation, at));
        let seen = match holder.other_addresses {
            None => self.shared_beat(&mut holder, at, note.as_deref(), pace).await?,
            Some(_) => self.observe(&holder, note.as_deref(), pace).await?,
        };
        let Some(lease) = seen else { return self.reclaim_lost(owner, pace).await };
        if !matches!(self.identity.classify(&lease, owner), Existing::Ours { .. }) {
            return self.reclaim_lost(owner, pace).await;
        }
        self.times.advance_past(renewed(&lease));
        if self.written.contains(renewed(&lease)) {
            // We have claimed the Lease, and the answer to that request was lost.
            let health_report = self.health.borrow_and_update().clone();
            self.record_claim(&lease, health_report, Acquisition::TakenBack, pace);
            return Ok(());
        }
        let before = holder.other_addresses.clone();
        holder.look(&self.identity, &lease, Instant::now(), &pace);
        if note.is_some() && rival::rival_note(&lease) == note.as_deref() {
            holder.announced = note;
        }
        if before != holder.other_addresses {
            let lease = self.requests.lease_object();
            (self.report)(&Event::TakenOverByOther {
                lease,
                other_addresses: holder.other_addresses.clone(),
            });
        }
        // There is nothing to write: the holder reports the health of the instance.
        self.reported = self.health.borrow_and_update().clone();
        self.lease = ClaimState::TakenOver(Box::new(holder));
        Ok(())
    }

    /// Claims the Lease again, if nothing was written since it was seen. Returns false if something was
    /// written.
    async fn take_back(&mut self, holder: &OtherHolder, pace: Pace) -> Result<bool, Failure> {
        let health_report = self.health.borrow_and_update().clone();
        // The patch is refused if the Lease has changed since these values were read from it.
        self.foreign = holder.foreign;
        match self.take_over(&holder.version, &health_report, pace).await {
            Ok(lease) => {
                self.record_claim(&lease, health_report, Acquisition::TakenBack, pace);
                Ok(true)
            }
            Err(failure) => {
                self.lease = ClaimState::TakenOver(Box::new(holder.clone()));
                if failure.cause == Cause::Conflict { Ok(false) } else { Err(failure) }
            }
        }
    }

    /// Beats beside a holder that claims the same.
    async fn shared_beat(
        &mut self,
        holder: &mut OtherHolder,
        at: Timestamp,
        rival: Option<&str>,
        pace: Pace,
    ) -> Result<Option<Lease>, Failure> {
        let (limit, sent) = (pace.request_timeout(), Instant::now());
        let after = holder.beaten.filter(|_| holder.tests_holder());
        let patch =
            self.identity.shared_beat_patch(&holder.version, SharedBeat { at, after, rival });
        let first = self.requests.patch(Operation::Beat, &patch, limit).await;
        let answer = match first {
            Err(failure) if failure.cause == Cause::Overtaken && after.is_some() => {
                (holder.alone_since, holder.writes) = (None, true);
                let beat = SharedBeat { at, after: None, rival };
                let patch = self.identity.shared_beat_patch(&holder.version, beat);
                self.requests.patch(Operation::Beat, &patch, limit).await
            }
            Ok(lease) => {
                holder.alone_since = after.and(holder.alone_since.or(Some(sent)));
                Ok(lease)
            }
            Err(failure) => Err(failure),
        };
        match answer {
            Ok(lease) => {
                self.times.accepted(at, renewed(&lease));
                holder.beaten = renewed(&lease);
                self.report_beat(at, sent, Carrier::Lease);
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
    async fn observe(
        &mut self,
        holder: &OtherHolder,
        note: Option<&str>,
        pace: Pace,
    ) -> Result<Option<Lease>, Failure> {
        let limit = pace.request_timeout();
        if note.is_none() {
            return self.requests.lease(limit).await;
        }
        let patch = self.identity.announcement_patch(&holder.version, note);
        match self.requests.patch(Operation::Beat, &patch, limit).await {
            Ok(lease) => Ok(Some(lease)),
            Err(failure) if failure.cause == Cause::Missing => Ok(None),
            // The Lease was deleted and created anew.
            Err(failure) if failure.cause == Cause::Conflict => self.requests.lease(limit).await,
            Err(failure) => Err(failure),
        }
    }

    /// Removes our note, if it is there. A note that stays is removed a ttl later anyway.
    pub(super) async fn remove_note(&mut self, holder: &OtherHolder, limit: Duration) {
        if holder.announced.is_some() && holder.note.seen() == holder.announced.as_deref() {
            let patch = self.identity.announcement_patch(&holder.version, None);
            let _ = self.requests.patch(Operation::Beat, &patch, limit).await;
        }
    }
}

//! The state of the loop that beats for one instance.

use std::sync::Arc;

use beatkeeper_api::Carrier;
use jiff::Timestamp;
use tokio::{sync::watch, time::Instant};

use super::{
    carrying::Carrying,
    options::{BeatOptions, Progress, Report},
    other_holder::OtherHolder,
};
use crate::{
    event::Event,
    lease::{
        HealthReport, Identity, LeaseVersion, Owner,
        foreign_fields::ForeignFields,
        renew_times::{RenewTimes, WrittenTimes},
        rival::incarnation,
    },
    requests::{Connection, Requests},
    schedule::Pace,
    silence::SilenceWatch,
    suspend::SuspendDetector,
};

/// One beating instance.
pub struct HeartbeatLoop {
    pub(super) requests: Arc<Requests>,
    pub(super) identity: Identity,
    pub(super) options: BeatOptions,
    pub(super) health: watch::Receiver<HealthReport>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) report: Report,
    pub(super) times: RenewTimes,
    pub(super) pace: Option<Pace>,
    pub(super) owner: Option<Owner>,
    pub(super) lease: ClaimState,
    /// Identifies this run of the process.
    pub(super) incarnation: String,
    pub(super) written: WrittenTimes,
    /// Set if another process beats under our claim without a claim of its own: the number of beats until we
    /// check whether it still does. `None`: only this process beats.
    pub(super) recheck_after: Option<u32>,
    /// The note of a rival in the Lease, and whether it still changes.
    pub(super) rival: SilenceWatch,
    /// The Lease of another owner under our name, while we wait to see whether it still receives beats.
    pub(super) occupied: Option<SilenceWatch>,
    /// The health report that the Lease has held since it became ours.
    pub(super) reported: HealthReport,
    /// The parts of it that are not ours to set: a person drains the instance, or has left a note.
    pub(super) foreign: ForeignFields,
    /// The health in the Lease was written by an earlier process. It holds until a check has a result.
    pub(super) from_earlier_process: bool,
    pub(super) last_success: Option<Instant>,
    /// When the beat was due that is being sent, or tried again.
    pub(super) beat_due: Instant,
    pub(super) lease_duration_sent: i32,
    pub(super) suspend_detector: SuspendDetector,
    /// The way through a gateway.
    pub(super) carrying: Carrying,
}

/// The state of our claim to the Lease.
pub(super) enum ClaimState {
    /// Nothing has been written yet.
    None,
    /// Something was written, and it is unknown whether it arrived.
    Unknown,
    /// The Lease is ours.
    Held(LeaseVersion),
    /// The Lease was ours, and another process has claimed it since.
    TakenOver(Box<OtherHolder>),
}

impl HeartbeatLoop {
    /// Makes a loop that has not begun to beat. The value in `health` goes out with the next beat. A change
    /// of it causes a beat at once.
    pub fn new(
        connection: Connection,
        identity: Identity,
        options: BeatOptions,
        health: watch::Receiver<HealthReport>,
        report: Report,
    ) -> Self {
        Self {
            requests: Arc::new(Requests::new(connection, &identity)),
            identity,
            options,
            health,
            progress: watch::Sender::default(),
            report,
            times: RenewTimes::default(),
            pace: None,
            owner: None,
            lease: ClaimState::None,
            incarnation: incarnation(),
            written: WrittenTimes::default(),
            recheck_after: None,
            rival: SilenceWatch::begin(None, Instant::now()),
            occupied: None,
            reported: HealthReport::default(),
            foreign: ForeignFields::default(),
            from_earlier_process: false,
            last_success: None,
            beat_due: Instant::now(),
            lease_duration_sent: 0,
            suspend_detector: SuspendDetector::default(),
            carrying: Carrying::default(),
        }
    }

    /// Returns a receiver that follows the progress of the loop.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Reports a beat that was sent at `sent`, and is accepted now.
    pub(super) fn report_beat(&self, at: Timestamp, sent: Instant, carrier: Carrier) {
        let late = sent.saturating_duration_since(self.beat_due);
        (self.report)(&Event::Beat { at, took: sent.elapsed(), late, carrier });
    }

    /// Whether the Lease has to be changed, because it states another health or note than it should. What an
    /// earlier process wrote holds until a check has a result.
    pub(super) fn health_differs(&self) -> bool {
        let health_report = self.health.borrow();
        let holds = self.from_earlier_process && health_report.provisional;
        !holds && !health_report.same_as(&self.reported)
    }
}

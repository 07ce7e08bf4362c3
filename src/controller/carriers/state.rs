//! What one scope of this replica knows of gateways.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use beatkeeper_core::{
    carriers::{
        frames::Incarnation,
        set::{CarrierSet, Claim, Effect, PodUid, Times},
        silence::Finding,
    },
    liveness::index::{Index, Record},
    vocabulary::{
        monotonic_time::MonotonicTime,
        pace::{Pace, SHORTEST_GAP},
    },
};
use tokio::sync::{mpsc, watch};

/// What the task of the streams has to do, in the order in which it was decided.
pub(crate) type Outbox = mpsc::UnboundedReceiver<Effect>;

/// All gateways, and what belongs to them. It is locked together with the index: see
/// [`Liveness`](crate::controller::liveness::Liveness).
pub(crate) struct CarrierState {
    pub(crate) set: CarrierSet,
    /// The names of the Pods of gateways.
    names: BTreeMap<PodUid, Arc<str>>,
    times: Times,
    /// Whether a term is to begin as soon as there is a claim.
    leads: bool,
    /// The sending of the last read of the election's Lease that showed this replica as the leader of this term (G10).
    election_read: Option<MonotonicTime>,
    outbox: mpsc::UnboundedSender<Effect>,
    /// Notified of each frame that was taken in.
    heard: watch::Sender<()>,
}

impl CarrierState {
    /// No gateway is known yet. Effects arrive in the returned channel.
    pub(crate) fn new(now: MonotonicTime) -> (Self, Outbox) {
        let (outbox, effects) = mpsc::unbounded_channel();
        // Before a registration is known, each stretch counts as a gap.
        let times = Times { longest_ttl: Duration::ZERO, tolerance: SHORTEST_GAP };
        let state = Self {
            set: CarrierSet::new(times, now),
            names: BTreeMap::new(),
            times,
            leads: false,
            election_read: None,
            outbox,
            heard: watch::Sender::default(),
        };
        (state, effects)
    }

    /// Hands effects to the task of the streams. It is called while the state is locked, so that frames are sent in the
    /// order in which they were decided.
    pub(crate) fn carry_out(&self, effects: Vec<Effect>) {
        for effect in effects {
            // This fails only when the scope has ended.
            let _ = self.outbox.send(effect);
        }
    }

    /// The registrations have changed. The longest ttl never falls: a former one may still apply to an instance (L8).
    pub(crate) fn set_times(&mut self, longest_ttl: Option<Duration>, tightest: Option<Pace>) {
        let longest_ttl = longest_ttl.unwrap_or_default().max(self.times.longest_ttl);
        let tolerance = tightest.map_or(SHORTEST_GAP, Pace::tolerance);
        self.times = Times { longest_ttl, tolerance };
        self.set.set_times(self.times);
    }

    /// Begins a term, if this claim is not that of the present one. Without a claim that holds, [`Self::awaits_claim`].
    pub(crate) fn begin_term(
        &mut self,
        claim: Option<Claim>,
        listed: Option<BTreeSet<Incarnation>>,
        index: &mut Index,
        now: MonotonicTime,
    ) {
        self.leads = true;
        let Some(Claim { term, .. }) = claim.filter(|claim| now < claim.until) else { return };
        if self.set.term() != Some(term) {
            self.election_read = None;
            let effects = self.set.begin_term(term, listed, index, now);
            self.carry_out(effects);
        }
    }

    /// Whether this replica has begun to lead, and no term could begin for want of a claim.
    pub(crate) fn awaits_claim(&self) -> bool {
        self.leads && self.set.term().is_none()
    }

    /// Ends the term.
    pub(crate) fn end_term(&mut self) {
        self.leads = false;
        self.election_read = None;
        self.set.end_term();
    }

    /// Notes that a frame was taken in.
    pub(crate) fn note_frame(&self) {
        self.heard.send_replace(());
    }

    /// Tells of each frame that is taken in from now on.
    pub(crate) fn frames(&self) -> watch::Receiver<()> {
        let mut frames = self.heard.subscribe();
        frames.mark_unchanged();
        frames
    }

    /// A read of the election's Lease has shown that the term goes on.
    pub(crate) fn confirmed(&mut self, sent: MonotonicTime) {
        self.election_read = self.election_read.max(Some(sent));
    }

    /// Whether a read of the election's Lease was sent after this deadline.
    pub(crate) fn is_confirmed(&self, deadline: MonotonicTime) -> bool {
        self.election_read.is_some_and(|sent| sent >= deadline)
    }

    /// What gateways say of an instance.
    pub(crate) fn finding(&self, record: &Record, pace: Pace, now: MonotonicTime) -> Finding {
        self.set.finding(record, pace, self.election_read, now)
    }

    /// Sets the name of a gateway's Pod.
    pub(crate) fn name(&mut self, pod: PodUid, name: Arc<str>) {
        self.names.insert(pod, name);
    }

    /// The name of a gateway's Pod, or its uid.
    pub(crate) fn name_of(&self, pod: &PodUid) -> Arc<str> {
        self.names.get(pod).cloned().unwrap_or_else(|| Arc::clone(pod))
    }
}

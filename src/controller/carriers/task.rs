//! The task that owns the streams to gateways.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use beatkeeper_core::carriers::{
    frames::{Incarnation, InstanceId, Term, Up, Verdict},
    set::{Effect, PodUid},
};
use futures::{
    FutureExt,
    future::{BoxFuture, OptionFuture},
};
use tokio::time::MissedTickBehavior;

use super::{
    discovery::Discovery,
    judge::Judge,
    judging::Judging,
    port::{Event, Streams},
    state::Outbox,
    term::CarrierTerms,
};
use crate::controller::{
    cluster::Cluster, metrics::process::Metrics, probe::others::OtherProbes, queue::WorkQueue,
};

/// How often the regular work is done: ticks, questions, and the search for gateways that are lost.
const OFTEN: Duration = Duration::from_millis(250);

/// What the task of one scope uses.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) terms: CarrierTerms,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) queue: Arc<WorkQueue>,
    pub(crate) others: Arc<OtherProbes>,
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Owns the streams of one scope.
pub(crate) struct GatewayTask {
    around: Surroundings,
    streams: Box<dyn Streams>,
    outbox: Outbox,
    judging: Judging,
    /// The write of the list of gateways that is under way, with the term in which it was asked for.
    listing: Option<BoxFuture<'static, Listed>>,
    /// The term in which it judged last.
    judged_in: Option<Term>,
}

/// A list that was to be written, and whether it was.
type Listed = (Term, BTreeSet<Incarnation>, bool);

impl GatewayTask {
    pub(crate) fn new(
        around: Surroundings,
        judge: Judge,
        streams: Box<dyn Streams>,
        outbox: Outbox,
    ) -> Self {
        let judging = Judging::new(Arc::new(judge), around.terms.clock);
        Self { around, streams, outbox, judging, listing: None, judged_in: None }
    }

    /// Runs for as long as the process.
    pub(crate) async fn run(mut self) {
        let mut ticks = tokio::time::interval(OFTEN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Effects first: they belong to the streams as they were when they were decided.
                biased;
                Some(effect) = self.outbox.recv() => self.carry_out(effect),
                _ = ticks.tick() => self.wake(),
                Some(listed) = OptionFuture::from(self.listing.as_mut()) => {
                    self.listing = None;
                    self.listed(listed);
                }
                (gateway, id, verdict) = self.judging.next() => self.judged(&gateway, id, verdict),
                (gateway, event) = self.streams.next() => self.happened(&gateway, event),
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send(gateway, frame) => self.streams.send(&gateway, frame),
            Effect::Close(gateway) => {
                tracing::warn!(
                    gateway = &*gateway,
                    "the stream is closed: the gateway has broken the protocol"
                );
                self.streams.close(&gateway);
            }
            Effect::Wake(registration) => self.around.queue.wake([registration]),
            Effect::Judge(gateway, id) => {
                let verdict = self.judging.begin(gateway.clone(), id);
                self.judged(&gateway, id, verdict);
            }
        }
    }

    fn judged(&self, gateway: &PodUid, id: InstanceId, verdict: Option<Verdict>) {
        let Some(verdict) = verdict else { return };
        self.around.terms.liveness.carried(|state, _| {
            let effects = state.set.judged(gateway, id, verdict);
            state.carry_out(effects);
        });
    }

    fn happened(&mut self, gateway: &PodUid, event: Event) {
        let CarrierTerms { clock, liveness, leadership } = &self.around.terms;
        let says_hello = matches!(event, Event::Frame(Up::Hello { .. }));
        if self.judged_in.is_some()
            && let Event::Frame(Up::Introduce { id, allowed: true, .. }) = event
            && liveness.carried(|state, _| state.set.named(gateway, id).is_none()) == Some(true)
        {
            // Another leader has judged it: this gateway was not heard until now.
            self.judging.judge_in_time([(gateway.clone(), id)]);
        }
        match event {
            Event::Connected => {
                liveness.carried(|state, _| {
                    let effects = state.set.connected(gateway, clock.now());
                    state.carry_out(effects);
                    tracing::info!(gateway = &*state.name_of(gateway), "the stream is open");
                });
            }
            Event::Disconnected(ended) => {
                liveness.carried(|state, _| {
                    state.set.disconnected(gateway, clock.now());
                    state.note_frame();
                    tracing::warn!(gateway = &*state.name_of(gateway), %ended, "the stream has ended");
                });
            }
            Event::Frame(frame) => {
                let beats = beats_in(&frame);
                liveness.carried(|state, index| {
                    let now = clock.now();
                    let claims = leadership.claim().is_some_and(|claim| now < claim.until);
                    let effects = state.set.receive(gateway, frame, claims, index, now);
                    state.carry_out(effects);
                    state.note_frame();
                });
                self.around.metrics.beats_carried(beats);
                self.acknowledge();
            }
        }
        if says_hello {
            // Nothing of a gateway is acknowledged before it is listed.
            self.list();
        }
    }

    /// Acknowledges what was taken in. The claim is asked for after that (G1).
    fn acknowledge(&self) {
        let CarrierTerms { clock, liveness, leadership } = &self.around.terms;
        let all_know = self.around.others.all_know_carriers(clock.now());
        liveness.carried(|state, _| {
            let claim = leadership.claim();
            let effects = state.set.acknowledge(claim, all_know, clock.now());
            state.carry_out(effects);
        });
    }

    /// The regular work.
    fn wake(&mut self) {
        self.streams.dial(&self.around.discovery.to_dial());
        if self.around.terms.liveness.carried(|state, _| state.awaits_claim()) == Some(true) {
            self.around.terms.begin();
        }
        self.follow_term();
        let CarrierTerms { clock, liveness, leadership } = &self.around.terms;
        let (longest, tightest) = {
            let cluster = self.around.cluster.lock();
            (cluster.longest_ttl(), cluster.tightest_pace())
        };
        let pods = liveness.carried(|state, _| state.set.pods().cloned().collect::<Vec<_>>());
        let silent = self.around.discovery.silent_among(pods.into_iter().flatten());
        let connected = liveness.carried(|state, index| {
            state.set_times(longest, tightest);
            let effects = state.set.wake(index, |pod| silent.contains(pod), clock.now());
            state.carry_out(effects);
            let claim = leadership.claim();
            let told = state.set.highest_term();
            if let Some(told) = told.filter(|told| claim.is_none_or(|claim| *told >= claim.term)) {
                leadership.exceed(told);
            }
            state.set.connected_pods().count()
        });
        self.around.metrics.gateways_connected(connected.unwrap_or_default());
        self.acknowledge();
        self.list();
        for ((gateway, id), verdict) in self.judging.told_anew() {
            self.judged(&gateway, id, Some(verdict));
        }
        for (gateway, id) in self.judging.due() {
            let verdict = self.judging.begin(gateway.clone(), id);
            self.judged(&gateway, id, verdict);
        }
    }

    /// Forgets the questions of a term that has ended. In a new one, has the instances judged that the leader before has
    /// allowed to renew. The others are in the outbox, or were begun before.
    fn follow_term(&mut self) {
        let liveness = &self.around.terms.liveness;
        let term = liveness.carried(|state, _| state.set.term()).flatten();
        if term == self.judged_in {
            return;
        }
        self.judged_in = term;
        if term.is_none() {
            return self.judging.clear();
        }
        let introduced = liveness.carried(|state, _| {
            state.set.allowed().map(|(gateway, id, _)| (gateway.clone(), id)).collect::<Vec<_>>()
        });
        self.judging.judge_in_time(introduced.into_iter().flatten());
    }

    /// Writes the list of gateways into the election's Lease, if it has to change (G5).
    fn list(&mut self) {
        if self.listing.is_some() {
            return;
        }
        let CarrierTerms { clock, liveness, leadership } = &self.around.terms;
        let wanted = liveness.carried(|state, _| {
            let term = state.set.term()?;
            Some((term, state.set.list_to_write(clock.now())?))
        });
        let Some((term, wanted)) = wanted.flatten() else { return };
        tracing::debug!(gateways = wanted.len(), "writing the list of gateways");
        let leadership = leadership.clone();
        self.listing = Some(
            async move {
                let written = leadership.list(term, wanted.clone()).await;
                (term, wanted, written)
            }
            .boxed(),
        );
    }

    fn listed(&self, (term, gateways, written): Listed) {
        if !written {
            // The next tick tries again.
            return;
        }
        self.around.terms.liveness.carried(|state, _| {
            if state.set.term() == Some(term) {
                state.set.list_written(gateways);
            }
        });
        self.acknowledge();
    }
}

/// How many beats a frame brings.
fn beats_in(frame: &Up) -> usize {
    match frame {
        Up::Batch { ids, .. } => ids.len(),
        Up::Hello { .. } | Up::Introduce { .. } | Up::Since { .. } | Up::Leaving => 0,
    }
}

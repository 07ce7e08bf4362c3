//! What is remembered of each registration between two reconciliations.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use beatkeeper_api::AdoptedInstance;

use crate::controller::clock::Clock;
use beatkeeper_core::{
    decide::{kept::KeptDecision, verdict::Suspect},
    inputs::earlier::Earlier,
    liveness::{
        index::Ticket,
        ttl::{Replaced, TtlHistory},
    },
    plan::{change_limits::ChangeLimits, kept::KeptPlan, refusals::Refusals},
    report::{flapping::Flaps, reported_states::ReportedStates},
    vocabulary::{
        address::AddressSet,
        key::Key,
        monotonic_time::MonotonicTime,
        rate_limit::{RateLimit, RateLimiter},
        version::Version,
    },
};

/// Unused rate limits are removed from memory at most this often.
const REMOVE_UNUSED: Duration = Duration::from_secs(10);

/// The states of all registrations of one scope.
pub(crate) struct States {
    clock: Clock,
    states: Mutex<HashMap<Key, State>>,
    /// The ttls of recently deleted registrations.
    replaced: Mutex<Replaced>,
    limits: Mutex<Limits>,
}

/// The state of one registration.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The uid of the registration. A new registration of the same name begins with an empty state.
    uid: String,
    /// The ttls that the registration has had.
    pub(crate) ttl: Option<TtlHistory>,
    /// After a failed write of a cordon, no cordon is written again before this time. The writes restore
    /// cordons in Leases that were created again.
    pub(crate) cordons_paused_until: MonotonicTime,
    /// The instances with a state that changes again and again.
    pub(crate) flaps: Flaps,
    /// When to send the events that had to wait.
    pub(crate) events_due: Option<MonotonicTime>,
    /// When to reconcile again because time alone may change the decision.
    pub(crate) due: Option<MonotonicTime>,
    /// The states that the last events reported. None after a start, until the first report.
    pub(crate) reported: Option<ReportedStates>,
    /// The Endpoints are not updated again before this time.
    pub(crate) endpoints_paused_until: MonotonicTime,
    /// How often in a row the registration could not be published.
    pub(crate) failures: u32,
    /// How often in a row a decision lacked a live read or a proof.
    pub(crate) failed_reads: u32,
    /// How many instances the last decision held. Only with traces.
    pub(crate) held: usize,
    /// The instances that were suspects at the last decision, or become suspects at their deadlines.
    pub(crate) expected: Vec<Suspect>,
    /// The last decision, if the next one may be made of it.
    pub(crate) kept: Option<Box<KeptDecision>>,
    /// The last plan, if the next one may be made of it. It belongs to the decision with this ticket.
    pub(crate) plan: Option<(Ticket, Box<KeptPlan>)>,
    /// Whether the Service, when it last existed, was one that the operator did not own.
    pub(crate) foreign_service: bool,
    /// Since when the Service with this uid has been seen without a selector.
    pub(crate) without_selector: Option<(String, MonotonicTime)>,
    /// In a dry run: the addresses that would be published now.
    pub(crate) dry_run_published: Option<AddressSet>,
    /// The addresses of outside instances at the last time when they could change, with the generation of the
    /// spec that declared them. The generation is None if they come from a status.
    pub(crate) earlier: Option<(Option<i64>, Arc<Earlier>)>,
    /// The adopted instances as this process wrote them last.
    pub(crate) adopted: Option<(Version, Vec<AdoptedInstance>)>,
    /// What the API server refuses to publish.
    pub(crate) refusals: Refusals,
    /// Adopted instances that have beaten since, until the status no longer lists them.
    pub(crate) weaned: Vec<AdoptedInstance>,
    /// Since when a Service that the operator did not own is missing.
    pub(crate) service_gone: Option<MonotonicTime>,
    /// The instances to be pruned, by the name of the Lease, until the API server confirms the write.
    pub(crate) pruning: HashMap<Arc<str>, Pruning>,
}

/// Why an instance is pruned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pruning {
    /// When its ttl had passed.
    pub(crate) deadline: MonotonicTime,
    /// When the live read of its Lease was sent.
    pub(crate) read: Option<MonotonicTime>,
    /// When the renewal of the probe was sent that proves the time up to the deadline.
    pub(crate) proof: Option<MonotonicTime>,
}

/// The rate limits of each registration's writes.
#[derive(Debug, Default)]
struct Limits {
    of: HashMap<Key, ChangeLimits>,
    /// When the unused limits were last removed.
    cleaned: MonotonicTime,
}

impl States {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            states: Mutex::default(),
            replaced: Mutex::default(),
            limits: Mutex::default(),
        }
    }

    fn states(&self) -> MutexGuard<'_, HashMap<Key, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replaced(&self) -> MutexGuard<'_, Replaced> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads or changes the state of a registration. A different uid means a new registration: its state is
    /// empty.
    pub(crate) fn with<T>(&self, key: &Key, uid: &str, change: impl FnOnce(&mut State) -> T) -> T {
        let mut states = self.states();
        let state = states.entry(key.clone()).or_default();
        if state.uid != uid {
            if let Some(ttl) = &state.ttl {
                self.replaced().put(key, ttl.longest(), self.clock.now());
            }
            *state = State { uid: uid.to_owned(), ..State::default() };
        }
        change(state)
    }

    /// Reads the state of a registration, and changes nothing. None if nothing is remembered of it.
    pub(crate) fn read<T>(
        &self,
        key: &Key,
        uid: &str,
        read: impl FnOnce(&State) -> T,
    ) -> Option<T> {
        self.states().get(key).filter(|state| state.uid == uid).map(read)
    }

    /// Notes the current ttl of a registration, as the watch shows it. A standby replica does so too, so that
    /// the next leader knows of the changes (L8). `former` is the former ttl in the status, for a process that
    /// has just started.
    pub(crate) fn note_ttl(&self, key: &Key, uid: &str, ttl: Duration, former: Option<Duration>) {
        let now = self.clock.now();
        // This detects a replacement of which the watch has not shown the deletion.
        self.with(key, uid, |_| ());
        let replaced = self.replaced().take(key, now);
        self.with(key, uid, |state| match &mut state.ttl {
            Some(history) => history.set(ttl, now),
            none => *none = Some(TtlHistory::after(former.max(replaced), ttl, now)),
        });
    }

    /// The ttls that a registration has had. The watch of the registrations keeps them up to date.
    pub(crate) fn ttl_history(&self, key: &Key, uid: &str, ttl: Duration) -> TtlHistory {
        self.with(key, uid, |state| state.ttl.get_or_insert_with(|| TtlHistory::new(ttl)).clone())
    }

    /// Gives access to the rate limits of a registration's writes.
    pub(crate) fn limits<T>(&self, key: &Key, ask: impl FnOnce(&mut ChangeLimits) -> T) -> T {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        ask(limits.of.entry(key.clone()).or_default())
    }

    /// Takes one token from a rate limit of a registration.
    ///
    /// # Errors
    /// When the next token will be available.
    pub(crate) fn may(
        &self,
        key: &Key,
        limit: RateLimit,
        which: impl FnOnce(&mut ChangeLimits) -> &mut RateLimiter,
    ) -> Result<(), MonotonicTime> {
        let now = self.clock.now();
        self.limits(key, |limits| which(limits).take(limit, now))
    }

    /// Forgets what is compared by resourceVersion.
    pub(crate) fn forget_versions(&self) {
        self.states().values_mut().for_each(|state| state.adopted = None);
    }

    /// Forgets a registration that is gone. A new registration may soon replace it. Therefore its longest ttl
    /// is kept, since its instances keep the pace that they last read.
    pub(crate) fn forget(&self, key: &Key) {
        let state = self.states().remove(key);
        let now = self.clock.now();
        if let Some(ttl) = state.and_then(|state| state.ttl) {
            self.replaced().put(key, ttl.longest(), now);
        }
    }

    /// Removes the rate limits that nothing has used lately. The limits of a deleted registration are kept until
    /// then, since it may be created again. A scan of all limits for each deleted registration would be too
    /// expensive.
    pub(crate) fn remove_unused_limits(&self) {
        let now = self.clock.now();
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(limits.cleaned) >= REMOVE_UNUSED {
            limits.of.retain(|_, limits| !limits.are_idle(now));
            limits.cleaned = now;
        }
    }

    /// Begins a term. This process does not know what another replica did in the meantime. As after a start, it
    /// takes from the status what has been reported.
    pub(crate) fn begin_term(&self) {
        for state in self.states().values_mut() {
            *state = State {
                uid: std::mem::take(&mut state.uid),
                ttl: state.ttl.take(),
                foreign_service: state.foreign_service,
                ..State::default()
            };
        }
    }

    /// A term ends. Another replica decides from now on, so what was decided is of no use any more.
    pub(crate) fn end_term(&self) {
        for state in self.states().values_mut() {
            (state.kept, state.plan) = (None, None);
        }
    }

    /// Calls this with each known registration.
    pub(crate) fn for_each_key(&self, each: impl FnMut(&Key)) {
        self.states().keys().for_each(each);
    }
}

//! Leader election against the API server: the I/O around [`beatkeeper_core::replica::leader`].

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use beatkeeper_api::{explain::ExplainEndpoint, gateway::GATEWAYS_ANNOTATION};
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::controller::{
    clock::Clock,
    error::ApiError,
    host,
    leader::{
        args::ElectionSettings,
        confirmation::{Confirmation, number},
        gateway_list,
        leadership::{Leadership, LeaseAccess, Standing, Term},
        lease::{ElectionLease, Written},
        lease_watch::LeaseWatch,
        list_writes::ListWrites,
        orders::{Order, Orders},
    },
    metrics::process::Metrics,
    telemetry::Telemetry,
};
use beatkeeper_core::{
    carriers::frames::{self, Incarnation},
    replica::leader::{Candidate, Draft, Move},
};

/// This replica's part in the election.
pub(crate) struct Election {
    lease: ElectionLease,
    identity: String,
    candidate: Candidate,
    clock: Clock,
    metrics: Arc<Metrics>,
    standing: watch::Sender<Standing>,
    terms: u64,
    /// Whether the last request failed. So the first failure in a row is logged as a warning, and the next ones
    /// are not.
    failing: bool,
    /// The leader that was logged last.
    logged_leader: Option<String>,
    /// What readers learn of this replica while it leads, as an annotation of the Lease.
    told: Option<String>,
    /// The annotation that lists gateways, as the last write has left it.
    gateways: Option<String>,
    /// The list of gateways that waits for the next write.
    lists: ListWrites,
    orders: Orders,
    ordered: mpsc::UnboundedReceiver<Order>,
}

impl Election {
    /// A part in the election.
    pub(crate) fn new(
        client: &Client,
        settings: &ElectionSettings,
        identity: String,
        telemetry: &Telemetry,
    ) -> Self {
        let namespace = settings.namespace.clone().unwrap_or_else(|| host::own_namespace(client));
        let (orders, ordered) = Orders::new();
        Self {
            lease: ElectionLease::new(client, &namespace, settings, telemetry.clock),
            candidate: Candidate::new(identity.clone(), settings.durations),
            identity,
            clock: telemetry.clock,
            metrics: telemetry.metrics.clone(),
            standing: watch::Sender::new(Standing::default()),
            terms: 0,
            failing: false,
            logged_leader: None,
            told: None,
            gateways: None,
            lists: ListWrites::default(),
            orders,
            ordered,
        }
    }

    /// Tells readers in the Lease where the leader explains instances.
    pub(crate) fn telling(self, endpoint: Option<&ExplainEndpoint>) -> Self {
        // It has no map, so that it can be written as JSON.
        let told = endpoint.and_then(|endpoint| serde_json::to_string(endpoint).ok());
        Self { told, ..self }
    }

    /// The leadership that this election decides about.
    pub(crate) fn leadership(&self) -> Leadership {
        let (lease, identity) = (self.lease.clone(), self.identity.clone());
        let confirmation = Confirmation::new(lease, identity, self.clock);
        Leadership::elected(self.clock, self.standing.subscribe())
            .through(LeaseAccess { orders: self.orders.clone(), confirmation })
    }

    /// Takes part in the election until `stop` is cancelled. If this replica leads then, it keeps the leadership
    /// until `ended` is cancelled, which is when all tasks that write have ended. Then it releases it.
    /// So the next replica leads at once, and two replicas never write at the same time.
    pub(crate) async fn run(mut self, stop: CancellationToken, ended: CancellationToken) {
        tracing::info!(
            identity = self.identity,
            lease = self.lease.name,
            "taking part in the election"
        );
        let mut lease_watch = LeaseWatch::new(&self.lease.api, &self.lease.name);
        while !ended.is_cancelled() {
            let now = self.clock.now();
            if stop.is_cancelled() && !self.candidate.holds(now) {
                break;
            }
            match self.candidate.next(now) {
                Move::Wait(until) => {
                    let valid = self.candidate.valid_until().filter(|valid| *valid > now);
                    let until = valid.map_or(until, |valid| until.min(valid));
                    let sooner = if stop.is_cancelled() { &ended } else { &stop };
                    let wait = self.wait(until.since(now), &mut lease_watch);
                    sooner.run_until_cancelled(wait).await;
                }
                Move::Read => self.look().await,
                Move::Write(draft) => self.write_lease(&draft).await,
            }
            self.publish_state();
        }
        self.release().await;
    }

    /// Waits, or takes an order. If another replica leads, its Lease is watched in the meantime.
    async fn wait(&mut self, pause: Duration, lease_watch: &mut LeaseWatch) {
        let pause = tokio::time::sleep(pause);
        let leads = self.candidate.holds(self.clock.now());
        if leads {
            lease_watch.rest();
        }
        tokio::select! {
            biased;
            () = pause => {}
            Some(order) = self.ordered.recv() => self.take(order),
            lease = lease_watch.news(), if !leads => {
                self.candidate.saw(lease, self.clock.now());
            }
        }
    }

    /// Takes an order of another part of the process. What it asks to write is written next.
    fn take(&mut self, order: Order) {
        match order {
            Order::List(order) => {
                if self.lists.take(order) {
                    self.candidate.hurry(self.clock.now());
                }
            }
            Order::Exceed(term) => {
                tracing::info!(term = term.0, "a gateway knows this term from another replica");
                self.candidate.exceed(term.0);
                self.candidate.hurry(self.clock.now());
            }
        }
    }

    async fn look(&mut self) {
        match self.lease.read().await {
            Ok(lease) => {
                self.note_success();
                self.candidate.saw(lease, self.clock.now());
            }
            Err(error) => self.note_failure(&error),
        }
    }

    async fn write_lease(&mut self, draft: &Draft) {
        let sent = self.clock.now();
        let list = self.lists.to_write(number(draft.transitions));
        let written = self.lease.write(draft, self.told.as_deref(), list.as_ref()).await;
        let is_listed = |list| written.as_ref().is_ok_and(|written| written.lists(list));
        let is_listed = list.as_ref().map(is_listed);
        match written {
            Ok(Written { lease, gateways }) => {
                self.note_success();
                self.candidate.wrote(lease, sent, self.clock.now());
                self.gateways = gateways;
            }
            // A creation that is answered with 404 is no conflict: the namespace does not exist. A read would show
            // the same.
            Err(error)
                if error.is_conflict() && !(draft.replaces.is_none() && error.is_absent()) =>
            {
                self.candidate.refused();
            }
            Err(error) => self.note_failure(&error),
        }
        if let Some(is_listed) = is_listed {
            self.lists.answer(is_listed);
        }
    }

    /// Publishes the standing in the election if it has changed.
    fn publish_state(&mut self) {
        let now = self.clock.now();
        let valid_until = self.candidate.valid_until().filter(|until| now < *until);
        let leads = valid_until.is_some();
        self.metrics.leads(leads);
        let before = self.standing.borrow().clone();
        let led = before.term.is_some();
        // This also covers a late answer that has brought leadership again. Writes may have been refused in between,
        // and only a new term begins with all registrations.
        let lapsed = led && (!leads || before.valid_until <= now);
        if lapsed {
            tracing::warn!(
                identity = self.identity,
                "this replica leads no longer: it writes nothing and goes on observing"
            );
            self.lists.end_term();
        }
        let number = self.candidate.number().map(number);
        let mut next = Standing { number, ..before.clone() };
        if leads && (lapsed || !led || before.number != number) {
            self.terms += 1;
            tracing::info!(
                identity = self.identity,
                term = number.unwrap_or_default().0,
                "this replica leads"
            );
            next.listed = self.begin_lists(number.unwrap_or_default());
        }
        next.term = leads.then_some(Term(self.terms));
        next.valid_until = valid_until.unwrap_or_default();
        self.standing.send_if_modified(|standing| {
            let changed = standing.term != next.term;
            *standing = next;
            changed
        });
        let leader = self.candidate.leader();
        if leader != self.logged_leader.as_deref() {
            self.logged_leader = leader.map(str::to_owned);
            if let Some(leader) = leader.filter(|leader| *leader != self.identity) {
                tracing::info!(leader, "another replica leads");
            }
        }
    }

    /// Reads which gateways the Lease listed when a term began.
    ///
    /// The write that began the term is answered with the list of the version that it replaced, because it leaves the
    /// annotation as it is. And its condition is that no list was written in between. Only if its answer came after the
    /// claim had lapsed can it have written a list, of the term that goes on with this number.
    fn begin_lists(&mut self, term: frames::Term) -> Option<Arc<BTreeSet<Incarnation>>> {
        let listed = self.gateways.as_deref().map(gateway_list::parse).transpose();
        let listed = listed.unwrap_or_else(|error| {
            tracing::warn!(
                %error,
                lease = self.lease.name,
                annotation = GATEWAYS_ANNOTATION,
                "the list of gateways cannot be read, so any gateway may have accepted beats in the term before; \
                 the next list replaces it"
            );
            None
        });
        if let Some(listed) = &listed {
            tracing::info!(gateways = listed.len(), "the election's Lease lists gateways");
        }
        self.lists.begin_term(term);
        listed.map(Arc::new)
    }

    /// Gives up the leadership. If the Lease is this replica's, writes the release to it.
    async fn release(mut self) {
        let mut release = self.candidate.release();
        self.publish_state();
        // A request without an answer may have taken effect. The second attempt reads the Lease to find out.
        for _ in 0..2 {
            let Some(draft) = release else { return };
            match self.lease.write(&draft, self.told.as_deref(), None).await {
                Ok(_) => {
                    return tracing::info!(identity = self.identity, "released the leadership");
                }
                Err(error) if !error.is_conflict() => {
                    return tracing::warn!(%error, "the next replica has to wait until this Lease expires");
                }
                Err(_) => {}
            }
            let Ok(lease) = self.lease.read().await else { return };
            self.candidate.saw(lease, self.clock.now());
            release = self.candidate.release();
        }
    }

    fn note_success(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!(lease = self.lease.name, "the election's Lease can be had again");
        }
    }

    fn note_failure(&mut self, error: &ApiError) {
        self.candidate.unanswered(self.clock.now());
        if std::mem::replace(&mut self.failing, true) {
            tracing::debug!(%error, "still no way to the election's Lease");
        } else {
            tracing::warn!(%error, "cannot reach the Lease of the election; leadership ends without an answer");
        }
    }
}

#[cfg(test)]
mod tests;

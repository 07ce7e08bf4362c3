//! Leader election against the API server: the I/O around [`beatkeeper_core::replica::leader`].

use std::{sync::Arc, time::Duration};

use beatkeeper_api::{
    explain::{EXPLAIN_ANNOTATION, ExplainEndpoint},
    heartbeat::renew_time,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::controller::{
    api::call_within,
    clock::Clock,
    error::ApiError,
    host,
    leader::{
        args::ElectionSettings,
        leadership::{Leadership, Standing, Term},
        lease_watch::{LeaseWatch, view},
    },
    metrics::process::Metrics,
    telemetry::Telemetry,
};
use beatkeeper_core::{
    objects::decode::Lenient,
    replica::leader::{Candidate, Draft, Durations, LeaderLease, Move},
};

/// This replica's part in the election.
pub(crate) struct Election {
    /// Read leniently, like heartbeats: times that the operator's types cannot hold must not stop the election.
    api: Api<Lenient<DynamicObject>>,
    name: String,
    identity: String,
    durations: Durations,
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
}

impl Election {
    pub(crate) fn new(
        client: &Client,
        settings: &ElectionSettings,
        identity: String,
        telemetry: &Telemetry,
    ) -> Self {
        let namespace = settings.namespace.clone().unwrap_or_else(|| host::own_namespace(client));
        let resource = ApiResource::erase::<Lease>(&());
        Self {
            api: Api::namespaced_with(client.clone(), &namespace, &resource),
            name: settings.name.clone(),
            candidate: Candidate::new(identity.clone(), settings.durations),
            identity,
            durations: settings.durations,
            clock: telemetry.clock,
            metrics: telemetry.metrics.clone(),
            standing: watch::Sender::new(Standing::default()),
            terms: 0,
            failing: false,
            logged_leader: None,
            told: None,
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
        Leadership::elected(self.clock, self.standing.subscribe())
    }

    /// Takes part in the election until `stop` is cancelled. If this replica leads then, it keeps the leadership
    /// until `ended` is cancelled, which is when all tasks that write have ended. Then it releases it.
    /// So the next replica leads at once, and two replicas never write at the same time.
    pub(crate) async fn run(mut self, stop: CancellationToken, ended: CancellationToken) {
        tracing::info!(identity = self.identity, lease = self.name, "taking part in the election");
        let mut lease_watch = LeaseWatch::new(&self.api, &self.name);
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

    /// Waits. If another replica leads, its Lease is watched in the meantime.
    async fn wait(&mut self, pause: Duration, lease_watch: &mut LeaseWatch) {
        let pause = tokio::time::sleep(pause);
        if self.candidate.holds(self.clock.now()) {
            lease_watch.rest();
            return pause.await;
        }
        tokio::select! {
            biased;
            () = pause => {}
            lease = lease_watch.news() => {
                self.candidate.saw(lease, self.clock.now());
            }
        }
    }

    async fn look(&mut self) {
        match self.read().await {
            Ok(lease) => {
                self.note_success();
                self.candidate.saw(lease, self.clock.now());
            }
            Err(error) => self.note_failure(&error),
        }
    }

    async fn write_lease(&mut self, draft: &Draft) {
        let sent = self.clock.now();
        match self.write(draft).await {
            Ok(lease) => {
                self.note_success();
                self.candidate.wrote(lease, sent, self.clock.now());
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
    }

    /// Publishes the standing in the election if it has changed.
    fn publish_state(&mut self) {
        let now = self.clock.now();
        let valid_until = self.candidate.valid_until().filter(|until| now < *until);
        let leads = valid_until.is_some();
        self.metrics.leads(leads);
        let before = *self.standing.borrow();
        let led = before.term.is_some();
        // This also covers a late answer that has brought leadership again. Writes may have been refused in between,
        // and only a new term begins with all registrations.
        let lapsed = led && (!leads || before.valid_until <= now);
        if lapsed {
            tracing::warn!(
                identity = self.identity,
                "this replica leads no longer: it writes nothing and goes on observing"
            );
        }
        if leads && (lapsed || !led) {
            self.terms += 1;
            tracing::info!(identity = self.identity, "this replica leads");
        }
        let next = Standing {
            term: leads.then_some(Term(self.terms)),
            valid_until: valid_until.unwrap_or_default(),
        };
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

    /// Gives up the leadership. If the Lease is this replica's, writes the release to it.
    async fn release(mut self) {
        let mut release = self.candidate.release();
        self.publish_state();
        // A request without an answer may have taken effect. The second attempt reads the Lease to find out.
        for _ in 0..2 {
            let Some(draft) = release else { return };
            match self.write(&draft).await {
                Ok(_) => {
                    return tracing::info!(identity = self.identity, "released the leadership");
                }
                Err(error) if !error.is_conflict() => {
                    return tracing::warn!(%error, "the next replica has to wait until this Lease expires");
                }
                Err(_) => {}
            }
            let Ok(lease) = self.read().await else { return };
            self.candidate.saw(lease, self.clock.now());
            release = self.candidate.release();
        }
    }

    fn note_success(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!(lease = self.name, "the election's Lease can be had again");
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

    fn limit(&self) -> Duration {
        self.durations.request_timeout()
    }

    async fn read(&self) -> Result<Option<LeaderLease>, ApiError> {
        let doing = || format!("read the election's Lease {}", self.name);
        let lease = call_within(self.limit(), doing, self.api.get_opt(&self.name)).await?;
        Ok(lease.as_ref().map(|Lenient(lease)| view(lease)))
    }

    async fn write(&self, draft: &Draft) -> Result<LeaderLease, ApiError> {
        let doing = || format!("write the election's Lease {}", self.name);
        let now = renew_time(self.clock.wall());
        let mut spec = json!({
            "holderIdentity": draft.holder,
            "leaseDurationSeconds": draft.seconds,
            "leaseTransitions": draft.transitions,
            "renewTime": now,
        });
        if draft.acquires {
            spec["acquireTime"] = json!(now);
        }
        let Lenient(written) = if let Some(version) = &draft.replaces {
            // Without an endpoint, that of an earlier leader is removed.
            let annotations = json!({ EXPLAIN_ANNOTATION: self.told });
            let metadata = json!({ "resourceVersion": version, "annotations": annotations });
            let patch = json!({ "metadata": metadata, "spec": spec });
            let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
            call_within(self.limit(), doing, self.api.patch(&self.name, &params, &patch)).await?
        } else {
            let mut lease = DynamicObject::new(&self.name, &ApiResource::erase::<Lease>(&()));
            lease.data = json!({ "spec": spec });
            let told = |told: &String| [(EXPLAIN_ANNOTATION.to_owned(), told.clone())].into();
            lease.metadata.annotations = self.told.as_ref().map(told);
            let params = PostParams::default();
            call_within(self.limit(), doing, self.api.create(&params, &Lenient(lease))).await?
        };
        Ok(view(&written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_client;
    use futures::FutureExt;
    use serde_json::Value;

    fn lease(spec: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": "beatkeeper", "resourceVersion": "7" },
            "spec": spec,
        }))
        .expect("a Lease")
    }

    fn election() -> Election {
        // No request is sent to this address.
        let config = kube::Config::new("http://127.0.0.1:1".parse().expect("a URL"));
        let options = kube_client::Options::of("test", || jiff::Timestamp::UNIX_EPOCH);
        let client = kube_client::connect(config, &options).expect("one");
        let second = Duration::from_secs(1);
        let settings = ElectionSettings {
            durations: Durations::new(second, second / 10, second / 100).expect("valid"),
            name: "beatkeeper".to_owned(),
            namespace: None,
        };
        let telemetry = Telemetry::new(Clock::start(), false);
        Election::new(&client, &settings, "replica-0".to_owned(), &telemetry)
    }

    fn renewed(election: &mut Election, version: u64) {
        let lease = LeaderLease {
            version: version.to_string(),
            holder: election.identity.clone(),
            duration: Duration::from_secs(1),
            transitions: 0,
        };
        let now = election.clock.now();
        election.candidate.wrote(lease, now, now);
        election.publish_state();
    }

    #[tokio::test]
    async fn a_claim_that_lapsed_before_it_was_renewed_begins_a_new_term() {
        let mut election = election();
        let leadership = election.leadership();
        renewed(&mut election, 1);
        let first = leadership.leads().await;
        renewed(&mut election, 2);
        assert_eq!(leadership.leads().await, first, "renewed in time");
        while leadership.holds() {
            tokio::task::yield_now().await;
        }
        renewed(&mut election, 3);
        assert_eq!(leadership.lost(first).now_or_never(), Some(()));
        assert_ne!(leadership.leads().await, first);
    }

    #[test]
    fn a_lease_is_read_whatever_is_missing_or_cannot_be_understood() {
        let nothing = LeaderLease {
            version: "7".to_owned(),
            holder: String::new(),
            duration: Duration::ZERO,
            transitions: 0,
        };
        assert_eq!(view(&lease(json!(null))), nothing);
        assert_eq!(view(&lease(json!({ "leaseDurationSeconds": -3 }))), nothing);
        let full = json!({
            "holderIdentity": "replica-0_1a2b", "leaseDurationSeconds": 15, "leaseTransitions": 4,
            "renewTime": "9999-12-31T23:59:59.999999Z",
        });
        let view = view(&lease(full));
        assert_eq!((view.holder.as_str(), view.transitions), ("replica-0_1a2b", 4));
        assert_eq!(view.duration, Duration::from_secs(15));
    }
}

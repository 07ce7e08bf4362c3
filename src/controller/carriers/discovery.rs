//! Finds gateways by their own Leases (G4): which to dial, and which are silent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use beatkeeper_api::gateway::{GATEWAY_LABEL, GATEWAY_LEASE_PREFIX, STREAMS_ANNOTATION};
use beatkeeper_core::{
    carriers::set::PodUid,
    liveness::probe_tracker,
    objects::{
        decode::Decoded,
        heartbeat::{Heartbeat, HeartbeatLease},
    },
    vocabulary::{
        monotonic_time::MonotonicTime,
        pace::{Pace, Silence},
        version::Token,
    },
};
use futures::StreamExt;
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, watcher::Event},
};

use crate::{
    controller::{
        api::ApiServer, clock::Clock, error::ApiError, liveness::Liveness,
        watch::backoff::WatchBackoff,
    },
    kube_client::{list::Collection, observe::observe},
};

/// How often a gateway renews its Lease.
const INTERVAL: Duration = Duration::from_secs(2);
/// The ttl of a Lease that does not say its own.
const TTL: Duration = Duration::from_secs(10);
/// How often silence is looked for.
const OFTEN: Duration = Duration::from_millis(500);

/// The gateways whose Leases this scope sees.
pub(crate) struct Discovery {
    clock: Clock,
    liveness: Arc<Liveness>,
    api: ApiServer,
    namespace: String,
    /// The name of the election's Lease, which the Leases of the gateways name.
    election: String,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By the names of their Leases.
    gateways: BTreeMap<String, Gateway>,
    /// Whether they were listed once.
    listed: bool,
    /// The Leases that the present list has not shown yet.
    unlisted: BTreeSet<String>,
}

/// A gateway, by its Lease.
struct Gateway {
    pod: PodUid,
    /// Where it takes streams; None if its Lease is deleted, or does not say.
    address: Option<SocketAddr>,
    token: Token,
    pace: Pace,
    /// When its Lease was last seen to change.
    seen: MonotonicTime,
    /// Whether a live read has confirmed the silence.
    silent: bool,
}

impl Gateway {
    /// None if the Lease names no Pod.
    fn of(lease: &HeartbeatLease, now: MonotonicTime) -> Option<Self> {
        let spec = lease.spec.as_ref()?;
        let pod = spec.holder_identity.as_deref().filter(|pod| !pod.is_empty())?;
        let seconds = spec.lease_duration_seconds.and_then(|it| u64::try_from(it).ok());
        let ttl = seconds.filter(|it| *it > 0).map_or(TTL, Duration::from_secs);
        let address = lease.annotations().get(STREAMS_ANNOTATION).and_then(|text| {
            let address = text.parse();
            if address.is_err() {
                tracing::warn!(
                    lease = lease.name_any(),
                    "the annotation {STREAMS_ANNOTATION} is {text:?}, and not IP:PORT: the gateway is not dialled"
                );
            }
            address.ok()
        });
        Some(Self {
            pod: pod.into(),
            address,
            token: Heartbeat::read(lease).token,
            pace: Pace { ttl, interval: INTERVAL.min(ttl / 2) },
            seen: now,
            silent: false,
        })
    }
}

impl Discovery {
    pub(crate) fn new(
        clock: Clock,
        liveness: Arc<Liveness>,
        api: ApiServer,
        namespace: String,
        election: String,
    ) -> Self {
        Self { clock, liveness, api, namespace, election, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gateways to dial.
    pub(crate) fn to_dial(&self) -> BTreeMap<PodUid, SocketAddr> {
        let known = self.known();
        let all = known.gateways.values();
        all.filter_map(|it| Some((it.pod.clone(), it.address?))).collect()
    }

    /// Which of these gateways have been silent for the ttl of their Leases, in proven time (G4). One without a Lease
    /// counts as silent, because a gateway writes its Lease before it takes streams.
    pub(crate) fn silent_among(&self, pods: impl Iterator<Item = PodUid>) -> BTreeSet<PodUid> {
        let known = self.known();
        let is_silent = |pod: &PodUid| match known.gateways.values().find(|it| it.pod == *pod) {
            Some(gateway) => gateway.silent,
            None => known.listed,
        };
        pods.filter(is_silent).collect()
    }

    /// Follows the Leases. Never returns.
    pub(crate) async fn run(self: Arc<Self>) {
        futures::future::join(self.follow(), self.look_for_silence()).await;
    }

    async fn follow(&self) {
        let selector = format!("{GATEWAY_LABEL}={}", self.election);
        let ours = Collection::of::<HeartbeatLease>(&self.api.client, Some(&self.namespace));
        let events = observe::<HeartbeatLease>(ours.labelled(&selector));
        let mut events = std::pin::pin!(events.backoff(WatchBackoff::new()));
        let mut failing = false;
        while let Some(event) = events.next().await {
            match event {
                // This event only announces a list.
                Ok(Event::Init) => self.take_in(Event::Init),
                Ok(event) => {
                    failing = false;
                    self.take_in(event);
                }
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!(%error, "the Leases of gateways cannot be watched: new gateways are not dialled");
                }
                Err(error) => tracing::debug!(%error, "still no watch of the Leases of gateways"),
            }
        }
    }

    fn take_in(&self, event: Event<Decoded<HeartbeatLease>>) {
        let now = self.clock.now();
        let mut known = self.known();
        match event {
            Event::Init => known.unlisted = known.gateways.keys().cloned().collect(),
            Event::InitApply(Ok(lease)) | Event::Apply(Ok(lease)) => {
                known.unlisted.remove(&lease.name_any());
                if let Some((pod, name)) = known.put(&lease, now) {
                    drop(known);
                    self.liveness.carried(|state, _| state.name(pod, name));
                }
            }
            Event::InitDone => {
                known.listed = true;
                for lease in std::mem::take(&mut known.unlisted) {
                    known.deleted(&lease);
                }
            }
            Event::Delete(Ok(lease)) => known.deleted(&lease.name_any()),
            Event::Delete(Err(lease)) => known.deleted(&lease.key.name),
            // Whether it beats is not known. The live read decides.
            Event::InitApply(Err(lease)) | Event::Apply(Err(lease)) => {
                known.unlisted.remove(&lease.key.name);
            }
        }
    }

    /// Confirms each silence by a live read. The probe proves that Leases can be renewed, and not that this watch
    /// delivers.
    async fn look_for_silence(&self) {
        loop {
            tokio::time::sleep(OFTEN).await;
            for lease in self.due() {
                let leases =
                    Api::<HeartbeatLease>::namespaced(self.api.client.clone(), &self.namespace);
                let doing = || format!("read Lease {lease} of a gateway");
                let sent = self.clock.now();
                let read = self.api.read(doing, leases.get(&lease)).await;
                self.known().confirm(&lease, read, sent, self.clock.now());
            }
        }
    }

    /// The Leases whose ttl has passed in proven time.
    fn due(&self) -> Vec<String> {
        let now = self.clock.now();
        let (path, proof) = {
            let path = self.liveness.path();
            (path.proven_time().clone(), path.proof())
        };
        let is_due = |gateway: &Gateway| {
            let silence = Silence { since: gateway.seen, before: Duration::ZERO };
            let deadline = path.deadline(silence, gateway.pace);
            !gateway.silent
                && now >= deadline
                && proof.is_some_and(|sent| probe_tracker::reaches(sent, deadline, now))
        };
        let known = self.known();
        let due = known.gateways.iter().filter(|(_, gateway)| is_due(gateway));
        due.map(|(lease, _)| lease.clone()).collect()
    }
}

impl Known {
    /// Takes in a Lease. Returns the uid and the name of a Pod that was not known.
    fn put(&mut self, lease: &HeartbeatLease, now: MonotonicTime) -> Option<(PodUid, Arc<str>)> {
        let name = lease.name_any();
        let Some(found) = Gateway::of(lease, now) else {
            self.deleted(&name);
            return None;
        };
        let before = self.gateways.get_mut(&name);
        if let Some(before) = before.filter(|before| before.pod == found.pod) {
            let silent = before.silent && before.token == found.token;
            let seen = if before.token == found.token { before.seen } else { now };
            *before = Gateway { seen, silent, ..found };
            return None;
        }
        let pod_name = name.strip_prefix(GATEWAY_LEASE_PREFIX).unwrap_or(&name);
        let told = (found.pod.clone(), pod_name.into());
        tracing::info!(gateway = pod_name, address = ?found.address, "a gateway");
        self.gateways.insert(name, found);
        Some(told)
    }

    /// A Lease is deleted. The gateway is not dialled any more. Its silence goes on, because it writes the Lease again if
    /// it lives.
    fn deleted(&mut self, lease: &str) {
        if let Some(gateway) = self.gateways.get_mut(lease) {
            gateway.address = None;
        }
    }

    /// Takes in a live read that was sent when the silence was due.
    fn confirm(
        &mut self,
        lease: &str,
        read: Result<HeartbeatLease, ApiError>,
        sent: MonotonicTime,
        now: MonotonicTime,
    ) {
        let Some(gateway) = self.gateways.get_mut(lease).filter(|it| it.seen < sent) else {
            return;
        };
        match read {
            Ok(found) if Heartbeat::read(&found).token == gateway.token => gateway.silent = true,
            Ok(found) => {
                self.put(&found, now);
            }
            // Nothing knows of it any more.
            Err(error) if error.is_absent() => {
                self.gateways.remove(lease);
            }
            Err(error) => tracing::debug!(%error, "whether a gateway is silent is not known"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime::from_millis(seconds * 1000)
    }

    fn lease(pod: &str, renewed: u32) -> HeartbeatLease {
        serde_json::from_value(json!({
            "metadata": {
                "name": "beatkeeper-gateway-a", "uid": "lease", "resourceVersion": "1",
                "annotations": { STREAMS_ANNOTATION: "10.0.0.7:8444" },
            },
            "spec": {
                "holderIdentity": pod, "leaseDurationSeconds": 10,
                "renewTime": format!("2026-01-01T00:00:{renewed:02}.000000Z"),
            },
        }))
        .expect("a Lease")
    }

    fn gateway(known: &Known) -> &Gateway {
        &known.gateways["beatkeeper-gateway-a"]
    }

    #[test]
    fn a_lease_names_its_pod_and_where_it_takes_streams() {
        let mut known = Known::default();
        let told = known.put(&lease("uid", 1), at(1)).expect("a new Pod");
        assert_eq!(told, ("uid".into(), "a".into()));
        assert_eq!(gateway(&known).address, "10.0.0.7:8444".parse().ok());
        assert_eq!(known.put(&lease("uid", 2), at(2)), None, "it is known");
        assert_eq!(gateway(&known).seen, at(2));
    }

    #[test]
    fn a_renewal_ends_the_silence_and_the_same_lease_again_does_not() {
        let mut known = Known::default();
        known.put(&lease("uid", 1), at(1));
        known.confirm("beatkeeper-gateway-a", Ok(lease("uid", 1)), at(20), at(21));
        assert!(gateway(&known).silent);
        known.put(&lease("uid", 1), at(22));
        assert!(gateway(&known).silent && gateway(&known).seen == at(1));
        known.put(&lease("uid", 2), at(23));
        assert!(!gateway(&known).silent);
    }

    #[test]
    fn a_live_read_that_shows_a_renewal_confirms_no_silence() {
        let mut known = Known::default();
        known.put(&lease("uid", 1), at(1));
        known.confirm("beatkeeper-gateway-a", Ok(lease("uid", 9)), at(20), at(21));
        assert!(!gateway(&known).silent);
        assert_eq!(gateway(&known).seen, at(21));
    }

    #[test]
    fn a_gateway_whose_lease_is_deleted_is_not_dialled_any_more() {
        let mut known = Known::default();
        known.put(&lease("uid", 1), at(1));
        known.deleted("beatkeeper-gateway-a");
        assert_eq!(gateway(&known).address, None);
        known.put(&lease("uid", 2), at(2));
        assert!(gateway(&known).address.is_some(), "it has written the Lease again");
    }
}

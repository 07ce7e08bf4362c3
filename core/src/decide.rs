//! The decide step, which makes a [`Verdict`] on each instance of a registration.

use std::{
    cell::{LazyCell, OnceCell},
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use beatkeeper_api::{
    InstanceState,
    heartbeat::{self, Health},
};

use super::{
    address::{AddressSet, OutsideRanges},
    adoption::{self, Adopted},
    cordon::{self, Cordon},
    endpoint::{EndpointPort, Family, PortSet},
    evidence::Evidence,
    frozen::Earlier,
    index::Record,
    judge::Candidate,
    min_ready,
    monotonic_time::MonotonicTime,
    placement,
    pod::PodView,
    registration::{PortTemplate, Registration},
    ttl::TtlHistory,
    verdict::{Reason, Verdict},
};

/// The inputs of a decision.
pub struct Facts<'a> {
    /// The registration.
    pub registration: &'a Registration,
    /// The ttls that it has had while this controller was running.
    pub ttl: &'a TtlHistory,
    /// Its heartbeat Leases.
    pub records: &'a [Record],
    /// The Pods that those Leases name, by name.
    pub pods: &'a HashMap<String, Arc<PodView>>,
    /// The zones of the Nodes on which those Pods run, by the name of the Node.
    pub zones: &'a HashMap<String, String>,
    /// The address families of the Service.
    pub families: &'a [Family],
    /// Name of the Service, for the host names of a headless one.
    pub service: &'a str,
    /// The ports that the Service has, too.
    pub ports: &'a [PortTemplate],
    /// The same ports, resolved. Set once they are known, for all instances that have no ports of their own, if the
    /// result is the same for each.
    pub shared_ports: OnceCell<PortSet>,
    /// The addresses in this registration's own slices.
    pub published: &'a AddressSet,
    /// Whether the registration's own slices contain an address with a port.
    pub publishes: &'a dyn Fn(IpAddr, &EndpointPort) -> bool,
    /// The ranges of outside instances.
    pub ranges: &'a OutsideRanges,
    /// Which object has an address, as far as the cluster knows.
    pub owner_of: &'a dyn Fn(IpAddr) -> Option<String>,
    /// Leases with a live read that failed, with the error.
    pub unreadable: &'a HashMap<Arc<str>, String>,
    /// The other evidence for and against counting silence as death.
    pub evidence: &'a Evidence,
    /// When the present term of this controller began, that is, when it last became the leader.
    pub term_began: MonotonicTime,
    /// The adopted instances that have not beaten yet, as known before the decision.
    pub adopted: &'a [Adopted],
    /// Set if nothing may be added or changed: the earlier addresses of outside instances. A published instance that
    /// is alive then keeps its address, even if an edit says otherwise.
    pub frozen: Option<&'a Earlier>,
    /// The cordons that are in effect.
    pub cordons: &'a [Cordon],
    /// The present moment.
    pub now: MonotonicTime,
}

/// Decides about every instance of a registration: those with a Lease, and declared ones without a Lease.
pub fn decide(facts: &Facts<'_>) -> Vec<Verdict> {
    // Reports keep the verdicts, so no extra capacity is allocated.
    let mut verdicts: Vec<Verdict> = Vec::with_capacity(facts.records.len());
    verdicts.extend(facts.records.iter().filter_map(|record| Candidate::of(facts, record).judge()));
    // Most instances have Leases and are not declared. So the few declared names are kept in the set for the look-ups.
    let mut silent: BTreeSet<&str> =
        facts.registration.declared.values().map(|declared| declared.name.as_str()).collect();
    for verdict in &verdicts {
        silent.remove(&*verdict.instance);
    }
    verdicts.extend(silent.into_iter().map(|instance| never_beat(facts, instance)));
    adoption::join(facts, &mut verdicts);
    verdicts.sort_by(|a, b| a.instance.cmp(&b.instance));
    // Evaluated only if protection needs more instances.
    let were_ready: LazyCell<HashSet<&str>, _> = LazyCell::new(|| {
        facts
            .records
            .iter()
            .filter(|record| record.expired_at.is_none())
            .filter(|record| record.content.health == Ok(Health::Passing))
            .map(|record| &*record.lease)
            .collect()
    });
    min_ready::protect(&mut verdicts, facts.registration.min_ready, |verdict| {
        let lease = verdict.lease.as_ref().map(|lease| &*lease.decision.lease);
        let placed = verdict.placement.as_ref();
        verdict.state == InstanceState::Expired
            && lease.is_some_and(|lease| were_ready.contains(lease))
            && placed.is_some_and(|placed| placed.kubelet_ready && placed.is_at(facts.published))
    });
    verdicts
}

/// The verdict on a declared instance without a Lease.
fn never_beat(facts: &Facts<'_>, instance: &str) -> Verdict {
    let (state, reason, message, placement) = match placement::outside(facts, instance, &[]) {
        Ok(placement) if let Some(entry) = cordon::named(facts.cordons, instance) => (
            InstanceState::Cordoned,
            Reason::Cordoned,
            cordon::told(&entry.reason),
            Some(placement),
        ),
        Ok(placement) => (
            InstanceState::Waiting,
            Reason::NeverBeat,
            format!(
                "declared, but no heartbeat Lease {} has been seen",
                heartbeat::lease_name(&facts.registration.key.name, instance)
            ),
            Some(placement),
        ),
        Err((reason, message)) => (InstanceState::Rejected, reason, message, None),
    };
    Verdict {
        instance: instance.into(),
        state,
        reason,
        message,
        placement,
        last_beat: None,
        lease: None,
        rival: None,
        requeue_at: None,
    }
}

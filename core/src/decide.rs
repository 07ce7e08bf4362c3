//! The decide step: from what is known of a registration to a [`Verdict`] on each of its instances.

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
    guard,
    index::Record,
    judge::Candidate,
    moment::Moment,
    placement,
    pod::PodView,
    registration::{PortTemplate, Registration},
    ttl::TtlHistory,
    verdict::{Reason, Verdict},
};

/// All that a decision depends on.
pub struct Facts<'a> {
    /// The registration.
    pub registration: &'a Registration,
    /// The ttls it had while this controller ran.
    pub ttl: &'a TtlHistory,
    /// Its heartbeat Leases.
    pub records: &'a [Record],
    /// The Pods named by those Leases, by name.
    pub pods: &'a HashMap<String, Arc<PodView>>,
    /// The zones of the Nodes those Pods run on, by the Node's name.
    pub zones: &'a HashMap<String, String>,
    /// The address families of the Service.
    pub families: &'a [Family],
    /// Name of the Service, for the host names of a headless one.
    pub service: &'a str,
    /// The ports that the Service has too.
    pub ports: &'a [PortTemplate],
    /// The same resolved, where it is the same for all who bring none of their own; once it is known.
    pub shared_ports: OnceCell<PortSet>,
    /// The addresses in this registration's own slices.
    pub published: &'a AddressSet,
    /// Whether an address is in them with a port.
    pub publishes: &'a dyn Fn(IpAddr, &EndpointPort) -> bool,
    /// Where outside instances may lie.
    pub ranges: &'a OutsideRanges,
    /// Whose an address is, as far as the cluster knows.
    pub owner_of: &'a dyn Fn(IpAddr) -> Option<String>,
    /// Leases that could not be read live, with the error.
    pub unreadable: &'a HashMap<Arc<str>, String>,
    /// What else speaks for and against taking silence for death.
    pub evidence: &'a Evidence,
    /// When this controller began to decide: now for the first time, or again after another led.
    pub term_began: Moment,
    /// Who was taken over and has not beaten yet, as far as is known before deciding.
    pub adopted: &'a [Adopted],
    /// When nothing may be added or changed: where outside instances were before. What is published
    /// and lives then keeps its place, whatever an edit says of it.
    pub frozen: Option<&'a Earlier>,
    /// The cordons that hold.
    pub cordons: &'a [Cordon],
    /// The present moment.
    pub now: Moment,
}

/// Decides about every instance of a registration: those with a Lease, and those declared without.
pub fn decide(facts: &Facts<'_>) -> Vec<Verdict> {
    // Reports keep them: no more room than they need.
    let mut verdicts: Vec<Verdict> = Vec::with_capacity(facts.records.len());
    verdicts.extend(facts.records.iter().filter_map(|record| Candidate::of(facts, record).judge()));
    // Most have Leases and are declared nowhere: what is looked up is the few.
    let mut silent: BTreeSet<&str> =
        facts.registration.declared.values().map(|declared| declared.name.as_str()).collect();
    for verdict in &verdicts {
        silent.remove(&*verdict.instance);
    }
    verdicts.extend(silent.into_iter().map(|instance| never_beat(facts, instance)));
    adoption::join(facts, &mut verdicts);
    verdicts.sort_by(|a, b| a.instance.cmp(&b.instance));
    // Asked only where protection is short of somebody.
    let were_ready: LazyCell<HashSet<&str>, _> = LazyCell::new(|| {
        facts
            .records
            .iter()
            .filter(|record| record.expired_at.is_none())
            .filter(|record| record.claim.health == Ok(Health::Passing))
            .map(|record| &*record.lease)
            .collect()
    });
    guard::protect(&mut verdicts, facts.registration.min_ready, |verdict| {
        let lease = verdict.lease.as_ref().map(|lease| &*lease.settled.lease);
        let placed = verdict.placement.as_ref();
        verdict.state == InstanceState::Expired
            && lease.is_some_and(|lease| were_ready.contains(lease))
            && placed.is_some_and(|placed| placed.kubelet_ready && placed.is_at(facts.published))
    });
    verdicts
}

/// A declared instance without a Lease.
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
        look_again: None,
    }
}

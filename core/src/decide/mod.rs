//! The decide step, which makes a [`Verdict`] on each instance of a registration.

pub mod compare;
pub mod cordons;
pub mod evidence;
pub mod facts;
pub mod gateways;
pub mod kept;
pub mod ordered;
pub mod premise;
pub mod verdict;

mod candidate;
mod judge;
mod life;
pub(crate) mod locate;
mod min_ready;
pub(crate) mod unplaced;

use std::{
    cell::LazyCell,
    collections::{BTreeSet, HashSet},
};

use beatkeeper_api::{InstanceState, heartbeat};

use crate::{
    adoption::verdicts,
    decide::{candidate::Candidate, facts::Facts, verdict::Verdict},
    vocabulary::reason::Reason,
};

/// Decides about every instance of a registration: those with a Lease, and declared ones without a Lease.
pub fn decide(facts: &Facts<'_>) -> Vec<Verdict> {
    // Reports keep the verdicts, so no extra capacity is allocated.
    let mut verdicts: Vec<Verdict> = Vec::with_capacity(facts.instances.records.len());
    verdicts.extend(
        facts
            .instances
            .records
            .iter()
            .enumerate()
            .filter_map(|(place, record)| Candidate::of(facts, place, record).judge()),
    );
    // Most instances have Leases and are not declared. So the few declared names are kept in the set for the look-ups.
    let mut silent: BTreeSet<&str> =
        facts.registration.declared.values().map(|declared| declared.name.as_str()).collect();
    for verdict in &verdicts {
        silent.remove(&*verdict.instance);
    }
    verdicts.extend(silent.into_iter().map(|instance| never_beat(facts, instance)));
    verdicts::join(facts, &mut verdicts);
    verdicts.sort_by(|a, b| a.instance.cmp(&b.instance));
    // Evaluated only if protection needs more instances.
    let were_ready: LazyCell<HashSet<&str>, _> = LazyCell::new(|| {
        let ready = facts.instances.records.iter().filter(|record| min_ready::was_ready(record));
        ready.map(|record| &*record.lease).collect()
    });
    let ready = verdicts.iter().filter(|it| min_ready::counts_as_ready(facts, it)).count();
    min_ready::protect(verdicts.iter_mut(), facts.registration.min_ready, ready, |verdict| {
        min_ready::is_about_to_be_pruned(facts, verdict, |lease| were_ready.contains(&**lease))
    });
    verdicts
}

/// The verdict on a declared instance without a Lease.
fn never_beat(facts: &Facts<'_>, instance: &str) -> Verdict {
    let (state, reason, message, placement) = match locate::outside(facts, instance, &[]) {
        Ok(placement) if let Some(entry) = cordons::named(facts.instances.cordons, instance) => (
            InstanceState::Cordoned,
            Reason::Cordoned,
            cordons::told(&entry.reason),
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
        Err(why) => (InstanceState::Rejected, why.reason(), why.to_string(), None),
    };
    Verdict::without_lease(instance, state, reason, message, placement)
}

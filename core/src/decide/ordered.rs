//! Verdicts ordered by the names of the instances.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    decide::{candidate, verdict::Verdict},
    vocabulary::instance::InstanceName,
};

/// The verdict on the instance with this Lease. The verdicts are ordered by the name of the instance.
pub fn verdict_on<'a>(
    verdicts: &'a [Verdict],
    lease: &Arc<str>,
    registration: &str,
) -> Option<&'a Verdict> {
    let (name, _) = candidate::name_of(lease, registration);
    let found = position(verdicts, &name).ok().map(|at| &verdicts[at]);
    found.filter(|verdict| verdict.lease_decision().is_some_and(|it| it.lease == *lease))
}

/// Where the verdict on an instance is, or belongs.
pub(super) fn position(verdicts: &[Verdict], instance: &InstanceName) -> Result<usize, usize> {
    verdicts.binary_search_by(|verdict| verdict.instance.cmp(instance))
}

/// Few are taken out one by one, many in one pass.
const FEW: usize = 8;

/// Takes out the verdicts on these instances.
pub(super) fn remove_all(verdicts: &mut Vec<Verdict>, gone: &BTreeSet<InstanceName>) {
    if gone.len() > FEW {
        return verdicts.retain(|verdict| !gone.contains(&verdict.instance));
    }
    for name in gone {
        if let Ok(at) = position(verdicts, name) {
            verdicts.remove(at);
        }
    }
}

/// Adds verdicts on instances without one.
pub(super) fn insert_all(verdicts: &mut Vec<Verdict>, new: Vec<Verdict>) {
    if new.len() > FEW {
        verdicts.extend(new);
        return verdicts.sort_by(|a, b| a.instance.cmp(&b.instance));
    }
    for verdict in new {
        if let Err(at) = position(verdicts, &verdict.instance) {
            verdicts.insert(at, verdict);
        }
    }
}

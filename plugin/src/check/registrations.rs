//! The registrations, and the load that they are.

use beatkeeper_api::ServiceRegistration;
use beatkeeper_core::{
    objects::registration::Registration,
    vocabulary::address::{self, Named},
};

use super::{facts::Facts, id::Check, verdict::Verdict};
use crate::model::finding::named;

/// More beats in a second are more than docs/scaling.md plans with.
const MOST_BEATS: f64 = 1000.0;
/// The size that etcd's store may have unless it was told otherwise, in bytes.
const USUAL_QUOTA: u64 = 2 << 30;

/// The verdicts on registrations.
pub fn verdicts(facts: &Facts) -> Vec<Verdict> {
    let crd_is_missing = matches!(facts.crd, Ok(None));
    if crd_is_missing {
        let skipped = [Check::Registrations, Check::OutsideRanges, Check::Beats];
        let skipped = skipped.map(|check| Verdict::skipped(check, Check::Crd));
        return skipped.into_iter().chain([store(facts)]).collect();
    }
    vec![accepted(facts), ranges(facts), beats(facts), store(facts)]
}

fn accepted(facts: &Facts) -> Verdict {
    let check = Check::Registrations;
    let all = match &facts.registrations {
        Ok(all) => all,
        Err(why) => return Verdict::unknown(check, why),
    };
    let stalled: Vec<String> = all.iter().filter_map(stalled).collect();
    if stalled.is_empty() {
        return Verdict::fine(check, format!("{} in all", all.len()));
    }
    let what = named(stalled.iter().map(String::as_str));
    Verdict::failed(check, what, "Look at each: kubectl beatkeeper -n NAMESPACE get NAME")
}

/// The registration and its reason, if it publishes nothing further until an object is changed.
fn stalled(object: &ServiceRegistration) -> Option<String> {
    let key = beatkeeper_core::vocabulary::key::Key::of(&object.metadata);
    let problem = Registration::validate(object).problems.into_iter().next();
    if let Some(problem) = problem {
        return Some(format!("{key} is not valid ({problem})"));
    }
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let mut stalled = conditions.filter(|it| it.type_ == "Stalled" && it.status == "True");
    stalled.next().map(|it| format!("{key} is stalled ({})", it.reason))
}

fn ranges(facts: &Facts) -> Verdict {
    let check = Check::OutsideRanges;
    let (operator, all) = match (&facts.operator, &facts.registrations) {
        (Ok(None), _) => return Verdict::skipped(check, Check::Operator),
        (Err(why), _) | (_, Err(why)) => return Verdict::unknown(check, why),
        (Ok(Some(operator)), Ok(all)) => (operator, all),
    };
    let allowed = operator.ranges();
    let mut refused = Vec::new();
    for object in all {
        let key = beatkeeper_core::vocabulary::key::Key::of(&object.metadata);
        for instance in &object.spec.instances {
            let addresses = instance.addresses.iter().map(|text| Named::from(&**text));
            let is_refused = |named: Named| {
                address::outside(&named, &key.namespace, &allowed, |_| None).is_err()
            };
            if addresses.into_iter().any(is_refused) {
                refused.push(format!("{key}/{}", instance.name));
            }
        }
    }
    if refused.is_empty() {
        return Verdict::fine(check, "");
    }
    let what = format!("outside of them: {}", named(refused.iter().map(String::as_str)));
    Verdict::failed(
        check,
        what,
        "Allow the range with outsideRanges of the chart, or correct the address",
    )
}

fn beats(facts: &Facts) -> Verdict {
    let check = Check::Beats;
    let (all, leases) = match (&facts.registrations, &facts.leases) {
        (Err(why), _) | (_, Err(why)) => return Verdict::unknown(check, why),
        (Ok(all), Ok(leases)) => (all, leases),
    };
    let mut rate = 0.0;
    for object in all {
        let registration = Registration::validate(object);
        let count = leases.get(&registration.key).copied().unwrap_or(0);
        rate += count as f64 / registration.interval.as_secs_f64();
    }
    let what = format!("{rate:.1} beats a second if all instances beat");
    if rate <= MOST_BEATS {
        return Verdict::fine(check, what);
    }
    Verdict::warning(
        check,
        what,
        "Lengthen the interval of the largest registrations; docs/scaling.md says how",
    )
}

/// The API server tells the size of its store, and not how large that may become.
fn store(facts: &Facts) -> Verdict {
    let check = Check::Store;
    let bytes = match &facts.stored {
        Err(why) => return Verdict::unknown(check, why),
        Ok(None) => {
            let why = "the API server does not tell the size of its store".to_owned();
            return Verdict::unknown(check, &super::facts::Unread(why));
        }
        Ok(Some(bytes)) => *bytes,
    };
    let size = format!("it has {} MiB; how large it may become is not to be seen", bytes >> 20);
    if bytes < USUAL_QUOTA / 4 * 3 {
        return Verdict::fine(check, size);
    }
    let what =
        format!("{size}, and etcd stops at 2 GiB unless --quota-backend-bytes says otherwise");
    Verdict::warning(
        check,
        what,
        "Compare it with the quota of your etcd, and defragment it; fewer beats need less",
    )
}

//! The registrations, and the load that they are.

use beatkeeper_api::{Carrier, ServiceRegistration};
use beatkeeper_core::{
    objects::registration::Registration,
    vocabulary::address::{self, Named},
};

use super::{
    facts::{Facts, Unread},
    id::Check,
    verdict::Verdict,
};
use crate::model::finding::named;

/// More beats in a second are more than docs/scaling.md plans with.
const MOST_BEATS: f64 = 1000.0;

/// The verdicts on registrations.
pub fn verdicts(facts: &Facts) -> Vec<Verdict> {
    let crd_is_missing = matches!(facts.crd, Ok(None));
    if crd_is_missing {
        let skipped = [Check::Registrations, Check::OutsideRanges, Check::Beats];
        return skipped.map(|check| Verdict::skipped(check, Check::Crd)).to_vec();
    }
    vec![accepted(facts), ranges(facts), beats(facts)]
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

/// How many beats are written in a second if all instances beat. Those through gateways are not.
pub(super) fn rate(facts: &Facts) -> Result<f64, &Unread> {
    let (all, leases) = match (&facts.registrations, &facts.leases) {
        (Err(why), _) | (_, Err(why)) => return Err(why),
        (Ok(all), Ok(leases)) => (all, leases),
    };
    let mut rate = 0.0;
    for object in all.iter().filter(|it| it.spec.carrier == Carrier::Lease) {
        let registration = Registration::validate(object);
        let count = leases.get(&registration.key).copied().unwrap_or(0);
        rate += count as f64 / registration.interval.as_secs_f64();
    }
    Ok(rate)
}

fn beats(facts: &Facts) -> Verdict {
    let check = Check::Beats;
    let rate = match rate(facts) {
        Err(why) => return Verdict::unknown(check, why),
        Ok(rate) => rate,
    };
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

//! Gateways. Where there are none, and no registration and no operator asks for them, nothing is told.

mod living;
mod upkeep;

use std::iter;

use beatkeeper_api::Carrier;
use beatkeeper_core::vocabulary::key::Key;

use super::{
    facts::{Facts, Gateways, Operator, Unread},
    id::Check,
    verdict::Verdict,
};
use crate::model::finding::named;

/// The checks that make no sense without gateways.
const FURTHER: [Check; 6] = [
    Check::GatewayReplicas,
    Check::GatewayLeases,
    Check::GatewayStreams,
    Check::GatewayVersions,
    Check::GatewayCertificates,
    Check::GatewayPolicy,
];

/// The verdicts on gateways.
pub fn verdicts(facts: &Facts) -> Vec<Verdict> {
    let asking = asking(facts);
    let found = found(&facts.gateways);
    let operator = facts.operator.as_ref().map(Option::as_ref);
    let uses = operator.is_ok_and(|it| it.is_some_and(Operator::uses_gateways));
    if asking.is_empty() && !uses && found != Ok(true) {
        return Vec::new();
    }
    match operator {
        Err(why) => vec![Verdict::unknown(Check::Gateways, why)],
        Ok(None) => vec![Verdict::skipped(Check::Gateways, Check::Operator)],
        Ok(Some(operator)) => {
            let first = used(operator, found, &asking);
            if first.is_failed() {
                let skipped = FURTHER.map(|check| Verdict::skipped(check, Check::Gateways));
                return iter::once(first).chain(skipped).collect();
            }
            let further = of_each(facts, operator).filter(|_| found.is_ok());
            iter::once(first).chain(further).collect()
        }
    }
}

/// The verdicts on gateways that exist.
fn of_each(facts: &Facts, operator: &Operator) -> impl Iterator<Item = Verdict> {
    let gateways = &facts.gateways;
    let verdicts = [
        living::replicas(gateways, operator),
        Some(living::leases(gateways, operator)),
        Some(living::streams(facts, operator)),
        upkeep::versions(gateways, operator),
        Some(upkeep::certificates(gateways)),
        Some(upkeep::policy(facts, operator)),
    ];
    verdicts.into_iter().flatten()
}

/// The registrations that ask for gateways. One that may not be read asks for none.
fn asking(facts: &Facts) -> Vec<String> {
    let all = facts.registrations.iter().flatten();
    let asking = all.filter(|it| it.spec.carrier == Carrier::Gateway);
    asking.map(|it| Key::of(&it.metadata).to_string()).collect()
}

/// Whether there is a Deployment of gateways, or a Lease of one.
fn found(gateways: &Gateways) -> Result<bool, &Unread> {
    let deployed = gateways.deployments.as_ref().map(|all| !all.is_empty());
    let living = gateways.living.as_ref().map(|all| !all.is_empty());
    match (deployed, living) {
        (Ok(true), _) | (_, Ok(true)) => Ok(true),
        (Err(why), _) | (_, Err(why)) => Err(why),
        (Ok(false), Ok(false)) => Ok(false),
    }
}

fn used(operator: &Operator, found: Result<bool, &Unread>, asking: &[String]) -> Verdict {
    let check = Check::Gateways;
    let uses = operator.uses_gateways();
    match found {
        Err(why) => Verdict::unknown(check, why),
        Ok(true) if uses => {
            let s = if asking.len() == 1 { "" } else { "s" };
            Verdict::fine(check, format!("{} registration{s} with carrier: Gateway", asking.len()))
        }
        Ok(true) => Verdict::failed(
            check,
            "the operator has no --gateway-cert-dir, so it takes no beats from them",
            "Upgrade the release with gateway.enabled=true, or remove the gateways",
        ),
        Ok(false) if asking.is_empty() => Verdict::failed(
            check,
            "there is none, and the operator has --gateway-cert-dir",
            "Restore them with helm upgrade, or switch them off with gateway.enabled=false",
        ),
        Ok(false) => {
            let asking = named(asking.iter().map(String::as_str));
            let what = format!("there is none, and carrier: Gateway is set in {asking}");
            let remedy = match uses {
                true => "Restore them with helm upgrade",
                false => {
                    "Install them with gateway.enabled=true, or set carrier: Lease in each registration"
                }
            };
            Verdict::failed(check, what, remedy)
        }
    }
}

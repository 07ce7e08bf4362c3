//! What gateways are installed with: a version, certificates, and a policy.

use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;

use super::living::renews;
use crate::{
    check::{
        facts::{Certificate, Facts, Gateway, Gateways, Operator, Unread},
        id::Check,
        installation::tag,
        verdict::Verdict,
    },
    model::finding::named,
    times::whole_span,
};

/// A certificate that lasts no longer has not been renewed when it was due, which is in the last third of its life.
/// Of a shorter life, the last sixth is too late.
const LATE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The condition by which the chart's policy is about gateways.
const CONDITION: &str = "a-gateway";

/// The verdict on the versions; none if gateways are in no Deployment.
pub(super) fn versions(gateways: &Gateways, operator: &Operator) -> Option<Verdict> {
    let check = Check::GatewayVersions;
    let all = match &gateways.deployments {
        Err(why) => return Some(Verdict::unknown(check, why)),
        Ok(all) => all,
    };
    all.first()?;
    let image = tag(&operator.image);
    let chart = operator.version.as_deref();
    let parts = all
        .iter()
        .flat_map(|it| [("image", tag(&it.image), image), ("chart", it.version.as_deref(), chart)]);
    let different = parts.filter_map(|(part, theirs, its)| {
        let (theirs, its) = (theirs?, its?);
        (theirs != its).then(|| format!("{part} {theirs}, and {its} of the operator"))
    });
    let different: Vec<String> = different.collect();
    if different.is_empty() {
        return Some(Verdict::fine(check, chart.or(image).unwrap_or_default()));
    }
    let what = format!("they differ: {}", different.join("; "));
    Some(Verdict::failed(
        check,
        what,
        "Wait until an upgrade has ended, or complete it with helm upgrade",
    ))
}

/// The verdict on the certificates that gateways show to instances and to the operator.
pub(super) fn certificates(gateways: &Gateways) -> Verdict {
    let check = Check::GatewayCertificates;
    let all = match &gateways.living {
        Err(why) => return Verdict::unknown(check, why),
        Ok(all) => all,
    };
    let living: Vec<&Gateway> = all.iter().filter(|it| renews(it)).collect();
    if living.is_empty() {
        return Verdict::skipped(check, Check::GatewayLeases);
    }
    let told = living.iter().filter_map(|it| Some((&*it.name, it.certificate?)));
    let told: Vec<(&str, Certificate)> = told.collect();
    let Some((name, first)) = told.iter().min_by_key(|(_, certificate)| certificate.left) else {
        return Verdict::unknown(check, &Unread("no gateway tells it in its Lease".to_owned()));
    };
    let remedy = "Renew them where they come from: docs/gateway.md, Certificates";
    let expired = told.iter().filter(|(_, certificate)| certificate.left.is_zero());
    let expired: Vec<&str> = expired.map(|(name, _)| *name).collect();
    if !expired.is_empty() {
        return Verdict::failed(check, format!("expired in {}", named(expired)), remedy);
    }
    let left = whole_span(first.left);
    if first.left < LATE.min(first.life / 6) {
        return Verdict::warning(check, format!("that of {name} expires in {left}"), remedy);
    }
    Verdict::fine(check, format!("{left} at least"))
}

/// The verdict on the policy that limits gateways to their own Leases.
pub(super) fn policy(facts: &Facts, operator: &Operator) -> Verdict {
    let check = Check::GatewayPolicy;
    let (policies, bindings) = match (&facts.policies, &facts.bindings) {
        (Err(why), _) | (_, Err(why)) => return Verdict::unknown(check, why),
        (Ok(policies), Ok(bindings)) => (policies, bindings),
    };
    let Some(policy) = policies.iter().find(|it| is_about_gateways(it, operator)) else {
        return Verdict::warning(
            check,
            "there is no policy: one that was broken into could take the election's Lease",
            "If admissionPolicy.enabled is true, restore it with helm upgrade",
        );
    };
    let name = policy.metadata.name.as_deref();
    let specs = bindings.iter().filter_map(|it| it.spec.as_ref());
    let mut actions = specs
        .filter(|spec| spec.policy_name.as_deref() == name)
        .flat_map(|spec| spec.validation_actions.iter().flatten());
    if actions.any(|it| it == "Deny") {
        return Verdict::fine(check, "");
    }
    let what = format!("no binding lets policy {} deny", name.unwrap_or_default());
    Verdict::failed(check, what, "Restore it with helm upgrade")
}

/// Whether a policy is about the gateways of this operator.
fn is_about_gateways(policy: &ValidatingAdmissionPolicy, operator: &Operator) -> bool {
    let account = format!("system:serviceaccount:{}:", operator.key.namespace);
    let conditions = policy.spec.iter().flat_map(|it| it.match_conditions.iter().flatten());
    let mut conditions = conditions.filter(|it| it.name == CONDITION);
    conditions.any(|it| it.expression.contains(&account))
}

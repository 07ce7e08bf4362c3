//! Whether gateways run: their Pods, their Leases, and the streams of the leader.

use std::time::Duration;

use crate::{
    check::{
        facts::{Facts, Gateway, Gateways, Operator},
        id::Check,
        operator,
        verdict::Verdict,
    },
    model::finding::named,
    times::whole_span,
};

/// A gateway renews its Lease every two seconds, and counts as dead after ten. Clocks differ by some seconds, too.
const OLDEST_RENEWAL: Duration = Duration::from_secs(20);

/// How long after its start the leader may not have listed a gateway yet.
const NEW: Duration = Duration::from_secs(15);

/// Where to look at the Pods.
fn look(operator: &Operator) -> String {
    let (namespace, name) = (&operator.key.namespace, &operator.key.name);
    format!(
        "Look at their Pods: kubectl -n {namespace} describe pods -l beatkeeper.dev/gateway={name}"
    )
}

/// The verdict on the Pods; none if gateways are in no Deployment.
pub(super) fn replicas(gateways: &Gateways, operator: &Operator) -> Option<Verdict> {
    let check = Check::GatewayReplicas;
    let all = match &gateways.deployments {
        Err(why) => return Some(Verdict::unknown(check, why)),
        Ok(all) => all,
    };
    let first = &all.first()?.key;
    let wanted: i32 = all.iter().map(|it| it.wanted).sum();
    let available: i32 = all.iter().map(|it| it.available).sum();
    let count = format!("{available} of {wanted}");
    Some(match wanted {
        0 => Verdict::failed(
            check,
            count,
            format!(
                "Scale them: kubectl -n {} scale deployment {} --replicas=2",
                first.namespace, first.name
            ),
        ),
        _ if all.iter().any(|it| it.available < it.wanted) => {
            Verdict::failed(check, count, look(operator))
        }
        1 => Verdict::warning(
            check,
            format!("{count}: while it is away, no instance can beat through a gateway"),
            "Run two or more: set gateway.replicas, or gateway.autoscaling.minReplicas",
        ),
        _ => Verdict::fine(check, count),
    })
}

/// The verdict on the Leases.
pub(super) fn leases(gateways: &Gateways, operator: &Operator) -> Verdict {
    let check = Check::GatewayLeases;
    let all = match &gateways.living {
        Err(why) => return Verdict::unknown(check, why),
        Ok(all) => all,
    };
    if all.is_empty() && none_is_available(gateways) {
        return Verdict::skipped(check, Check::GatewayReplicas);
    }
    if all.is_empty() {
        return Verdict::failed(check, "none has one", look(operator));
    }
    let silent: Vec<String> = all.iter().filter(|it| !renews(it)).map(silence).collect();
    if silent.is_empty() {
        return Verdict::fine(check, format!("{} in all", all.len()));
    }
    let silent = named(silent.iter().map(String::as_str));
    let namespace = &operator.key.namespace;
    let remedy =
        format!("Look at the Pod of each, and at its log: kubectl -n {namespace} logs NAME");
    Verdict::failed(check, format!("not {silent}"), remedy)
}

fn none_is_available(gateways: &Gateways) -> bool {
    gateways.deployments.iter().flatten().all(|it| it.available == 0)
}

/// Whether a gateway renews its Lease.
pub(super) fn renews(gateway: &Gateway) -> bool {
    gateway.renewed.is_some_and(|ago| ago <= OLDEST_RENEWAL)
}

/// A gateway, and since when it is silent.
fn silence(gateway: &Gateway) -> String {
    match gateway.renewed {
        Some(ago) => format!("{} for {}", gateway.name, whole_span(ago)),
        None => format!("{} ever", gateway.name),
    }
}

/// The verdict on the streams. The leader lists a gateway in the election's Lease before it acknowledges beats from there.
pub(super) fn streams(facts: &Facts, operator: &Operator) -> Verdict {
    let check = Check::GatewayStreams;
    if operator::leader(facts, operator).is_failed() {
        return Verdict::skipped(check, Check::Leader);
    }
    let (all, listed) = match (&facts.gateways.living, &facts.gateways.listed) {
        (Err(why), _) | (_, Err(why)) => return Verdict::unknown(check, why),
        (Ok(all), Ok(listed)) => (all, listed),
    };
    let living: Vec<&Gateway> = all.iter().filter(|it| renews(it)).collect();
    if living.is_empty() {
        return Verdict::skipped(check, Check::GatewayLeases);
    }
    let is_unheard = |it: &&Gateway| it.age >= NEW && !listed.contains(&it.pod);
    let unheard: Vec<&str> =
        living.iter().copied().filter(is_unheard).map(|it| &*it.name).collect();
    if unheard.is_empty() {
        return Verdict::fine(check, "");
    }
    let (namespace, name) = (&operator.key.namespace, &operator.key.name);
    Verdict::failed(
        check,
        format!("not {}", named(unheard)),
        format!(
            "Look at the log of the leader for the word gateway: kubectl -n {namespace} logs deployment/{name}; docs/gateway.md tells what the streams need"
        ),
    )
}

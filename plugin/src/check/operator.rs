//! The operator: its replicas, its leader, and the path of beats.

use std::time::Duration;

use super::{
    facts::{Election, Facts, Operator, Unread},
    id::Check,
    verdict::Verdict,
};
use crate::times::whole_span;

/// A leader renews its probe at least every ten seconds. This is the age at which the alert BeatkeeperPathUnproven fires.
const OLDEST_PROOF: Duration = Duration::from_secs(60);

/// The verdicts on the operator.
pub fn verdicts(facts: &Facts) -> Vec<Verdict> {
    let operator = match &facts.operator {
        Ok(Some(operator)) => operator,
        Ok(None) => {
            let remedy = "Install the chart; if it is in a namespace that you may not list, name that with -n";
            let skipped = [Check::Replicas, Check::Leader, Check::Path];
            let first = Verdict::failed(Check::Operator, "there is no Deployment of it", remedy);
            let skipped = skipped.map(|check| Verdict::skipped(check, Check::Operator));
            return std::iter::once(first).chain(skipped).collect();
        }
        Err(why) => {
            let all = [Check::Operator, Check::Replicas, Check::Leader, Check::Path];
            return all.map(|check| Verdict::unknown(check, why)).to_vec();
        }
    };
    let found = Verdict::fine(Check::Operator, format!("Deployment {}", operator.key));
    vec![found, replicas(operator), leader(facts, operator), path(facts, operator)]
}

fn replicas(operator: &Operator) -> Verdict {
    let check = Check::Replicas;
    let Operator { key, wanted, available, .. } = operator;
    let count = format!("{available} of {wanted}");
    if *wanted > 0 && available >= wanted {
        return Verdict::fine(check, count);
    }
    let remedy = match wanted {
        0 => format!(
            "Scale it: kubectl -n {} scale deployment {} --replicas=2",
            key.namespace, key.name
        ),
        _ => format!(
            "Look at its Pods: kubectl -n {} describe pods -l beatkeeper.dev/operator={}",
            key.namespace, key.name
        ),
    };
    Verdict::failed(check, count, remedy)
}

/// The verdict on the leader.
pub(super) fn leader(facts: &Facts, operator: &Operator) -> Verdict {
    let check = Check::Leader;
    let Some(lease) = operator.election() else {
        return Verdict::fine(check, "the only replica needs no election");
    };
    let logs = format!(
        "Look at its log: kubectl -n {} logs deployment/{}",
        operator.key.namespace, operator.key.name
    );
    match &facts.election {
        Err(why) => Verdict::unknown(check, why),
        Ok(None) => Verdict::failed(check, format!("Lease {lease} does not exist"), logs),
        Ok(Some(Election { holder, .. })) if holder.is_empty() => {
            Verdict::failed(check, format!("no replica holds Lease {lease}"), logs)
        }
        Ok(Some(Election { holder, renews: false })) => Verdict::failed(
            check,
            format!("{holder} holds Lease {lease}, and does not renew it"),
            logs,
        ),
        Ok(Some(Election { holder, renews: true })) => Verdict::fine(check, holder),
    }
}

fn path(facts: &Facts, operator: &Operator) -> Verdict {
    let check = Check::Path;
    if leader(facts, operator).is_failed() {
        return Verdict::skipped(check, Check::Leader);
    }
    let remedy = "Look at the log of the leader for the word probe; docs/runbooks/BeatkeeperPathUnproven.md has the causes";
    match &facts.proof {
        Err(why) => Verdict::unknown(check, why),
        // The Lease of the probe is named after the replica, and only the election names that.
        Ok(None) if operator.election().is_none() => {
            let why = "without an election it is not known which Lease is the probe";
            Verdict::unknown(check, &Unread(why.to_owned()))
        }
        Ok(None) => Verdict::failed(check, "the leader has no probe", remedy),
        Ok(Some(age)) if *age > OLDEST_PROOF => {
            let what = format!("the last proof is {} old", whole_span(*age));
            Verdict::failed(check, what, remedy)
        }
        Ok(Some(age)) => Verdict::fine(check, format!("proven {} ago", whole_span(*age))),
    }
}

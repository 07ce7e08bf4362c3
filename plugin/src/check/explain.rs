//! Whether the leader explains instances to this user.

use super::{
    facts::{Explained, Facts},
    id::Check,
    operator,
    verdict::Verdict,
};

/// The verdict on the explanations; none if the operator was not told to give any.
pub fn verdicts(facts: &Facts) -> Vec<Verdict> {
    let check = Check::Explain;
    let operator = match &facts.operator {
        Err(why) => return vec![Verdict::unknown(check, why)],
        Ok(None) => return vec![Verdict::skipped(check, Check::Operator)],
        Ok(Some(operator)) => operator,
    };
    if !operator.explains() {
        return Vec::new();
    }
    if operator::leader(facts, operator).is_failed() {
        return vec![Verdict::skipped(check, Check::Leader)];
    }
    vec![match &facts.explained {
        Err(why) => Verdict::unknown(check, why),
        Ok(Explained::Answers(account)) => {
            Verdict::fine(check, format!("it answers ServiceAccount {account}"))
        }
        Ok(Explained::Unannounced(lease)) => Verdict::failed(
            check,
            format!("Lease {lease} has no certificate of the leader, or one that cannot be read"),
            format!(
                "Wait until a roll-out has ended; then look at the log of the leader: kubectl -n {} logs deployment/{}",
                operator.key.namespace, operator.key.name
            ),
        ),
        Ok(Explained::Silent(why)) => Verdict::failed(
            check,
            why,
            "Restore the ServiceAccount, its roles and the operator's flags with helm upgrade; docs/explain.md describes the way",
        ),
    }]
}

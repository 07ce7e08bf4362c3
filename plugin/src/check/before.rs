//! What a cluster needs before an installation.

use super::{facts::Before, id::Check, verdict::Verdict};

/// The oldest version of Kubernetes that the chart can be installed on.
const OLDEST: (u32, u32) = (1, 33);

/// The verdicts on a cluster.
pub fn verdicts(facts: &Before) -> Vec<Verdict> {
    vec![kubernetes(facts), rights(facts), policies(facts), no_other(facts)]
}

fn kubernetes(facts: &Before) -> Verdict {
    let check = Check::Kubernetes;
    match facts.kubernetes {
        Ok((major, minor)) if (major, minor) >= OLDEST => {
            Verdict::fine(check, format!("{major}.{minor}"))
        }
        Ok((major, minor)) => {
            let what =
                format!("this is {major}.{minor}; the chart needs {}.{}", OLDEST.0, OLDEST.1);
            Verdict::failed(check, what, "Upgrade the cluster")
        }
        Err(ref why) => Verdict::unknown(check, why),
    }
}

fn rights(facts: &Before) -> Verdict {
    let check = Check::InstallRights;
    match &facts.lacking {
        Ok(lacking) if lacking.is_empty() => Verdict::fine(check, ""),
        Ok(lacking) => Verdict::failed(
            check,
            format!("you may not create {}", lacking.join(", ")),
            "Let an administrator install these, and switch them off in your values",
        ),
        Err(why) => Verdict::unknown(check, why),
    }
}

fn policies(facts: &Before) -> Verdict {
    let check = Check::PolicyApi;
    match &facts.serves_policies {
        Ok(true) => Verdict::fine(check, ""),
        Ok(false) => Verdict::failed(
            check,
            "it does not",
            "Switch the API admissionregistration.k8s.io/v1 on, or install with admissionPolicy.enabled=false",
        ),
        Err(why) => Verdict::unknown(check, why),
    }
}

fn no_other(facts: &Before) -> Verdict {
    let check = Check::NoOther;
    match &facts.operator {
        Ok(None) => Verdict::fine(check, ""),
        Ok(Some(operator)) => Verdict::failed(
            check,
            format!("Deployment {} is an operator", operator.key),
            "Upgrade that release; a second one must watch other namespaces, and install neither CRD nor ClusterRoles",
        ),
        Err(why) => Verdict::unknown(check, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::facts::{Operator, Unread};

    fn failed(change: impl FnOnce(&mut Before)) -> Vec<Check> {
        let mut facts = Before {
            kubernetes: Ok((1, 37)),
            lacking: Ok(Vec::new()),
            serves_policies: Ok(true),
            operator: Ok(None),
        };
        change(&mut facts);
        let verdicts = verdicts(&facts);
        verdicts.into_iter().filter(Verdict::is_failed).map(|it| it.check).collect()
    }

    #[test]
    fn each_thing_that_is_missing_fails_its_own_check() {
        assert_eq!(failed(|_| {}), []);
        assert_eq!(failed(|it| it.kubernetes = Ok((1, 32))), [Check::Kubernetes]);
        assert_eq!(failed(|it| it.kubernetes = Ok((1, 33))), []);
        assert_eq!(failed(|it| it.kubernetes = Ok((2, 0))), []);
        assert_eq!(
            failed(|it| it.lacking = Ok(vec!["clusterroles".to_owned()])),
            [Check::InstallRights]
        );
        assert_eq!(failed(|it| it.serves_policies = Ok(false)), [Check::PolicyApi]);
        assert_eq!(failed(|it| it.operator = Ok(Some(Operator::example()))), [Check::NoOther]);
        assert_eq!(failed(|it| it.operator = Err(Unread("forbidden".to_owned()))), []);
    }
}

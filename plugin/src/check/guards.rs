//! What the chart puts in the way of beats: admission policies and a priority level.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;

use beatkeeper_api::{GROUP, heartbeat::REGISTRATION_LABEL};

use super::{facts::Facts, id::Check, verdict::Verdict};

/// The endings of the names of the chart's policies. Those that refuse must deny.
const POLICIES: [(&str, bool); 3] = [("-heartbeats", true), ("-cordons", true), ("-advice", false)];

/// The verdicts on both.
pub fn verdicts(facts: &Facts) -> Vec<Verdict> {
    vec![policies(facts), flows(facts)]
}

fn policies(facts: &Facts) -> Verdict {
    let check = Check::AdmissionPolicy;
    let (policies, bindings) = match (&facts.policies, &facts.bindings) {
        (Err(why), _) | (_, Err(why)) => return Verdict::unknown(check, why),
        (Ok(policies), Ok(bindings)) => (policies, bindings),
    };
    let restore = "Restore them with helm upgrade";
    let mut wrong = Vec::new();
    let mut found = 0;
    for (ending, must_deny) in POLICIES {
        let ours = policies.iter().filter(|policy| is_ours(policy));
        let mut names = ours.filter_map(|it| it.metadata.name.as_deref());
        let Some(name) = names.find(|name| name.ends_with(ending)) else {
            wrong.push(format!("there is no policy …{ending}"));
            continue;
        };
        found += 1;
        let mut actions = bindings.iter().filter_map(|it| it.spec.as_ref()).filter_map(|spec| {
            let is_its = spec.policy_name.as_deref() == Some(name);
            is_its.then(|| spec.validation_actions.clone().unwrap_or_default())
        });
        match actions.next() {
            None => wrong.push(format!("no binding puts policy {name} into force")),
            Some(actions) if must_deny && !actions.iter().any(|it| it == "Deny") => {
                wrong.push(format!("the binding of policy {name} does not deny"));
            }
            Some(_) => {}
        }
    }
    match (found, wrong.is_empty()) {
        (0, _) => Verdict::warning(
            check,
            "there are none: every user that may write Leases in a namespace may beat for any instance in it",
            "If admissionPolicy.enabled is true, restore them with helm upgrade",
        ),
        (_, true) => Verdict::fine(check, ""),
        (_, false) => Verdict::failed(check, wrong.join("; "), restore),
    }
}

/// Whether a policy is about heartbeats or registrations.
fn is_ours(policy: &ValidatingAdmissionPolicy) -> bool {
    let Some(matches) = policy.spec.as_ref().and_then(|it| it.match_constraints.as_ref()) else {
        return false;
    };
    let expressions = matches.object_selector.iter().flat_map(|it| it.match_expressions.iter());
    let mut groups =
        matches.resource_rules.iter().flatten().flat_map(|rule| rule.api_groups.iter().flatten());
    expressions.flatten().any(|it| it.key == REGISTRATION_LABEL) || groups.any(|it| it == GROUP)
}

fn flows(facts: &Facts) -> Verdict {
    let check = Check::FlowControl;
    let (flows, levels) = match (&facts.flows, &facts.levels) {
        (Err(why), _) | (_, Err(why)) => return Verdict::unknown(check, why),
        (Ok(flows), Ok(levels)) => (flows, levels),
    };
    let restore = "Restore it with helm upgrade";
    let own = |name: &str| name.ends_with("-heartbeats");
    let flow = flows.iter().find(|it| it.metadata.name.as_deref().is_some_and(own));
    let level = levels.iter().find(|name| own(name));
    let wanted =
        flow.and_then(|it| it.spec.as_ref()).map(|it| &it.priority_level_configuration.name);
    match (wanted, level) {
        (None, None) => Verdict::warning(
            check,
            "they have none, so a busy API server delays them",
            "If flowControl.enabled is true, restore it with helm upgrade",
        ),
        (None, Some(level)) => {
            let what = format!("no FlowSchema sends beats to priority level {level}");
            Verdict::failed(check, what, restore)
        }
        (Some(wanted), _) if !levels.contains(wanted) => {
            let what = format!("there is no PriorityLevelConfiguration {wanted}");
            Verdict::failed(check, what, restore)
        }
        (Some(wanted), _) => Verdict::fine(check, wanted),
    }
}

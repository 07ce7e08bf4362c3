//! The steps about the place: where is the instance, and may it be published there?

use super::{
    case::Case,
    step::{Mark, Step},
};
use crate::model::instance::{FoundPod, InPod};

/// The steps.
pub fn steps(case: &Case<'_>) -> Vec<Step> {
    let mut steps = match &case.instance.pod {
        Some(pod) => in_pod(case, pod),
        None => vec![outside(case)],
    };
    let cordon = case.lease.and_then(|lease| lease.heartbeat.content.cordoned.as_deref());
    let reported = case.instance.state == beatkeeper_api::InstanceState::Cordoned;
    steps.push(match cordon {
        Some(why) => {
            let text = match why {
                "" => "a person has cordoned it, without a reason".to_owned(),
                why => format!("a person has cordoned it: {why}"),
            };
            Step::new("cordon", Mark::Trouble, text).with_remedy(lift(case))
        }
        None if reported => {
            let text = format!("a cordon from earlier still applies: {}", case.instance.message);
            Step::new("cordon", Mark::Trouble, text)
        }
        None => Step::new("cordon", Mark::Fine, "it is not cordoned"),
    });
    steps
}

fn lift(case: &Case<'_>) -> String {
    let lease = case.instance.lease.as_deref().unwrap_or_default();
    format!(
        "If it may come back: kubectl -n {} annotate lease {lease} beatkeeper.dev/cordoned-",
        case.view.key.namespace
    )
}

fn in_pod(case: &Case<'_>, pod: &InPod) -> Vec<Step> {
    let InPod { name, uid, found } = pod;
    let Some(found) = found else {
        let text = format!("it runs in Pod {name}, which does not exist, or was not read");
        return vec![Step::new("Pod", Mark::Trouble, text)];
    };
    let FoundPod { uid: present, node, selected, ready, terminal, deleting } = found;
    if present != uid {
        let text =
            format!("its Lease belongs to an earlier Pod {name}, and not to the present one");
        return vec![Step::new("Pod", Mark::Trouble, text)];
    }
    let node = node.as_ref().map_or_else(String::new, |node| format!(" on Node {node}"));
    let at = addresses(case);
    let mut steps = vec![Step::new("Pod", Mark::Fine, format!("it runs in Pod {name}{node}{at}"))];
    steps.push(match selected {
        true => Step::new("selector", Mark::Fine, "spec.podSelector matches the Pod"),
        false => Step::new("selector", Mark::Trouble, "spec.podSelector does not match the Pod"),
    });
    let (mark, text) = match (terminal, deleting, ready) {
        (true, ..) => (Mark::Trouble, "the Pod has ended"),
        (_, true, _) => (Mark::Trouble, "the Pod is being deleted, so the instance drains"),
        (.., false) => {
            (Mark::Trouble, "ContainersReady or a readiness gate of the Pod is not true")
        }
        (.., true) => (Mark::Fine, "the kubelet says that the Pod is ready"),
    };
    steps.push(Step::new("kubelet", mark, text));
    steps
}

fn outside(case: &Case<'_>) -> Step {
    let reason = &*case.instance.reason;
    let refused = ["AddressRefused", "AddressMissing", "AddressFamilyMismatch", "PortUnresolved"];
    if refused.contains(&reason) {
        let text = format!(
            "it runs outside the cluster, and cannot be published there: {}",
            case.instance.message
        );
        return Step::new("address", Mark::Trouble, text);
    }
    let at = addresses(case);
    match at.as_str() {
        "" => Step::new(
            "address",
            Mark::Trouble,
            "it runs outside the cluster, and its address is not known",
        ),
        at => Step::new(
            "address",
            Mark::Fine,
            format!("it runs outside the cluster{at}; the operator allows that"),
        ),
    }
}

fn addresses(case: &Case<'_>) -> String {
    match case.instance.addresses.as_slice() {
        [] => String::new(),
        addresses => format!(" at {}", addresses.join(" and ")),
    }
}

//! The steps about the Lease: does it exist, and does it say who beats?

use beatkeeper_api::heartbeat;

use super::{
    case::Case,
    step::{Mark, Step},
};
use crate::times;

/// The steps.
pub fn steps(case: &Case<'_>, name: &str) -> Vec<Step> {
    let Some(lease) = case.lease else { return vec![absent(case, name)] };
    let content = &lease.heartbeat.content;
    let mut text = format!("Lease {name} exists");
    if let Some(created) = lease.created {
        text.push_str(&format!(", created {} ago", times::span(times::between(created, case.now))));
    }
    let registration = &case.view.key.name;
    let named = heartbeat::instance_of(name, registration).is_some();
    let mut steps = vec![match named {
        true => Step::new("Lease", Mark::Fine, text),
        false => {
            let text = format!("Lease {name} has the label of {registration}, but not its name");
            Step::new("Lease", Mark::Trouble, text)
        }
    }];
    steps.push(match &content.holder {
        Some(holder) if *holder == case.instance.name => {
            let process = lease.incarnation.as_ref();
            let process = process.map_or_else(String::new, |it| format!(", by process {it}"));
            Step::new("holder", Mark::Fine, format!("spec.holderIdentity is {holder}{process}"))
        }
        Some(holder) => Step::new(
            "holder",
            Mark::Trouble,
            format!(
                "spec.holderIdentity is {holder:?}, and the name of the Lease says {}",
                case.instance.name
            ),
        ),
        None => Step::new("holder", Mark::Trouble, "spec.holderIdentity is missing"),
    });
    if let Some(rival) = &content.rival {
        steps.push(
            Step::new("name", Mark::Trouble, format!("several processes claim it: {rival}"))
                .with_remedy("Give each process an instance name of its own."),
        );
    }
    steps
}

fn absent(case: &Case<'_>, name: &str) -> Step {
    let adopted = case.instance.reason == "Adopted";
    let text = format!("there is no Lease {name}: it has not registered");
    match adopted {
        true => Step::new(
            "Lease",
            Mark::Note,
            format!("{text}; it was taken over, and stays until its first beat"),
        ),
        false => Step::new("Lease", Mark::Trouble, text),
    }
}

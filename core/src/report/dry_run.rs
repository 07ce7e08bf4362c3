//! A dry run: everything is decided and reported, and nothing is written.

use std::collections::HashSet;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::{
    inputs::Inputs,
    plan::{
        build::PlanSettings,
        write::{Plan, Write},
    },
    vocabulary::address::AddressSet,
};

/// What a message begins with, or the part of it that is about the dry run.
pub const LEAD: &str = "dry run: ";
/// What a dry run says of an operator that writes no Endpoints. The kubectl plugin reads it ([`told_endpoints`]): nothing
/// else that a user may read tells this setting of the operator.
pub const NO_ENDPOINTS: &str = "no Endpoints are written (--publish-endpoints=false)";

/// The largest number of writes that are named.
const NAMED: usize = 5;
/// The largest number of characters of the report. A name may have 253.
const TOLD_MAX: usize = 1000;

/// The writes that would be made, as text.
pub fn describe(inputs: &Inputs, plan: &Plan, settings: PlanSettings) -> String {
    let unwritten = match settings.publish_endpoints {
        true => String::new(),
        false => format!("; {NO_ENDPOINTS}"),
    };
    let all = inputs.announced.len() + plan.writes().count();
    if all == 0 {
        return format!("there is nothing to write{unwritten}");
    }
    let would = inputs.announced.iter().cloned().chain(plan.writes().map(ToString::to_string));
    let mut text = would.take(NAMED).collect::<Vec<_>>().join(", ");
    if all > NAMED {
        text.push_str(&format!(" and {} writes more", all - NAMED));
    }
    let text: String = text.chars().take(TOLD_MAX).collect();
    format!("would {text}{unwritten}; nothing is published or removed")
}

/// Whether the operator whose condition Ready has this message writes Endpoints; `None` if the message is not of a dry
/// run.
pub fn told_endpoints(message: &str) -> Option<bool> {
    let (_, told) = message.split_once(LEAD)?;
    Some(!told.contains(NO_ENDPOINTS))
}

/// The addresses that the operator's slices would contain after a plan.
pub fn published_after(inputs: &Inputs, plan: &Plan) -> AddressSet {
    let written: HashSet<&str> = plan.writes().filter_map(Write::slice_name).collect();
    let stays = |slice: &&EndpointSlice| {
        slice.metadata.name.as_deref().is_none_or(|name| !written.contains(name))
    };
    // If a slice is written twice, the last write counts. It never has more endpoints than the first.
    let mut last = std::collections::HashMap::new();
    let mut created = Vec::new();
    for write in plan.writes() {
        match write {
            Write::CreateSlice(slice) => created.push(slice),
            Write::UpdateSlice(slice, _) => drop(last.insert(write.slice_name(), slice)),
            Write::DeleteSlice { .. } => drop(last.remove(&write.slice_name())),
            Write::CreateEndpoints(_)
            | Write::UpdateEndpoints(..)
            | Write::DeleteEndpoints { .. } => {}
        }
    }
    let kept = inputs.snapshot.slices.iter().map(|slice| &**slice).filter(stays);
    kept.chain(created)
        .chain(last.into_values())
        .flat_map(|slice| &slice.endpoints)
        .flat_map(|endpoint| &endpoint.addresses)
        .filter_map(|address| address.parse().ok())
        .collect()
}

//! A dry run: everything is decided and reported, and nothing is written.

use std::collections::HashSet;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::{
    inputs::Inputs,
    plan::write::{Plan, Write},
    vocabulary::address::AddressSet,
};

/// The largest number of writes that are named.
const NAMED: usize = 5;
/// The largest number of characters of the report. A name may have 253.
const TOLD_MAX: usize = 1000;

/// The writes that would be made, as text.
pub fn describe(inputs: &Inputs, plan: &Plan) -> String {
    let all = inputs.announced.len() + plan.writes().count();
    if all == 0 {
        return "there is nothing to write".to_owned();
    }
    let would = inputs.announced.iter().cloned().chain(plan.writes().map(ToString::to_string));
    let mut text = would.take(NAMED).collect::<Vec<_>>().join(", ");
    if all > NAMED {
        text.push_str(&format!(" and {} writes more", all - NAMED));
    }
    let text: String = text.chars().take(TOLD_MAX).collect();
    format!("would {text}; nothing is published or removed")
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

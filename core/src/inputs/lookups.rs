//! Which registrations are affected by a change elsewhere in the cluster.
//!
//! A decision asks which object has an address, and in which zone a Node is. Neither object names the registration
//! that asked. So each registration records its questions before it asks them, and a change wakes exactly the
//! registrations that asked. Otherwise an instance with a refused address would wait until something else causes the
//! next decision. That may take minutes if it is the only instance.

use std::collections::BTreeSet;

use crate::{
    cluster_cache::dependents::Asked,
    inputs::Inputs,
    liveness::index::Record,
    objects::{heartbeat::Origin, registration::Registration},
    vocabulary::address::{Named, OutsideRanges},
};

impl Asked {
    /// What the next decision about these objects will ask. Only addresses in an allowed range are recorded. For other
    /// addresses, their owner makes no difference, and a Lease may name many of them.
    pub fn of(
        registration: &Registration,
        records: &[Record],
        inputs: &Inputs,
        ranges: &OutsideRanges,
        nodes: BTreeSet<String>,
    ) -> Self {
        let ranges = ranges.of(&registration.key.namespace);
        if ranges.is_empty() {
            return Self { nodes, ..Self::default() };
        }
        let declared = registration.declared.values().flat_map(|instance| &instance.addresses);
        let adopted = inputs.adoption.instances.iter().map(|adopted| adopted.address);
        let outside = records.iter().filter(|record| record.content.origin == Origin::Outside);
        let named = outside.flat_map(|record| &record.content.addresses);
        let earlier = inputs.frozen().into_iter().flat_map(|earlier| earlier.all());
        let named = named.chain(earlier).filter_map(|named| match named {
            Named::Address(address) => Some(*address),
            Named::Other(_) => None,
        });
        let addresses = named
            .chain(declared.filter_map(|text| text.parse().ok()))
            .chain(adopted)
            .filter(|address| ranges.iter().any(|range| range.contains(address)));
        Self { addresses: addresses.collect(), nodes }
    }
}

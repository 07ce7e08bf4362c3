//! Computes the writes that bring the published slices to what the packing wants.

use k8s_openapi::api::discovery::v1 as discovery;

use crate::{
    plan::{
        draft::{Draft, Fate},
        meta::Required,
        pack::Packing,
        read::{PortIds, Slice, write_endpoint, write_ports},
        target::Target,
        write::{Tally, Write},
    },
    vocabulary::endpoint::{Family, PortSet},
};

/// The writes of the first phase and those of the second.
#[derive(Default)]
pub(super) struct Phases {
    /// Writes that remove no wanted endpoint, unless another slice publishes it as well.
    pub first: Vec<Write>,
    /// Writes that remove what the first phase has published in another slice.
    pub second: Vec<Write>,
}

pub(super) fn plan(
    target: &Target<'_>,
    published: Vec<&discovery::EndpointSlice>,
    max: usize,
) -> Phases {
    let required = Required::of_slice(target);
    let mut port_ids = PortIds::default();
    let slices = published
        .into_iter()
        // A slice that is being deleted may disappear at any moment, so it cannot keep an endpoint published.
        .filter(|slice| slice.metadata.deletion_timestamp.is_none())
        .map(|slice| Slice::read(slice, &target.service.name, &mut port_ids))
        .collect();
    let families = &target.service.families;
    let endpoints =
        target.endpoints.iter().filter(|endpoint| families.contains(&Family::of(endpoint.address)));
    let fit = |slice: &Slice<'_>| required.is_met(&slice.object.metadata);
    let mut packing = Packing::new(endpoints, slices, port_ids, fit);
    packing.fill(max, &target.closed);

    let mut phases = Phases::default();
    for (slice, draft) in packing.slices.iter().zip(&packing.drafts) {
        Change { slice, draft, packing: &packing, required: &required }.plan(&mut phases);
    }
    for (group, endpoints) in &packing.created {
        let group = &packing.groups[*group];
        let mut metadata = required.fresh();
        // The API server appends a unique suffix, and truncates long names to make room for it.
        metadata.generate_name = Some(format!("{}-", target.service.name));
        phases.first.push(Write::CreateSlice(discovery::EndpointSlice {
            address_type: group.family.as_str().to_owned(),
            endpoints: endpoints.iter().copied().map(write_endpoint).collect(),
            metadata,
            ports: Some(write_ports(&group.ports)),
        }));
    }
    phases
}

/// One slice and what becomes of it.
struct Change<'p, 'a> {
    slice: &'p Slice<'a>,
    draft: &'p Draft<'a>,
    packing: &'p Packing<'a>,
    required: &'p Required<'p>,
}

impl Change<'_, '_> {
    fn plan(&self, phases: &mut Phases) {
        let Draft { group, recycled, fates: _, added, changed, unfit, waits } = self.draft;
        let (stay, leave) = (self.draft.stay(), self.draft.leave());
        // An empty slice is not kept. Consumers do not need it to tell a Service without endpoints from an unknown
        // Service: they look up the Service. Kubernetes' own controller keeps one so that its cache can tell whether it
        // has seen the Service. Here the status of the registration serves that purpose.
        let goes = stay == 0 && added.is_empty();
        let ports = group.filter(|_| *recycled).map(|id| &self.packing.groups[id].ports);

        if *waits {
            // Removals do not wait for the second phase. Neither does any other change that is possible under the
            // current ports.
            let early = if goes || *recycled {
                Tally { removed: leave, ..Tally::default() }
            } else {
                Tally { added: added.len(), removed: leave, changed: *changed }
            };
            let mut late = Tally { removed: self.draft.move_away(), ..Tally::default() };
            let in_place = !goes && !*recycled;
            if early != Tally::default() || (in_place && *unfit) {
                phases.first.push(self.update(early, Phase::Early { in_place }));
            }
            if *recycled {
                late.changed = stay;
            }
            phases.second.push(if goes { self.delete() } else { self.update(late, Phase::Final) });
        } else if goes {
            phases.first.push(self.delete());
        } else {
            let changed = if ports.is_some() { stay } else { *changed };
            let tally = Tally { added: added.len(), removed: leave, changed };
            if tally != Tally::default() || ports.is_some() || *unfit {
                phases.first.push(self.update(tally, Phase::Final));
            }
        }
    }

    fn delete(&self) -> Write {
        Write::delete_slice(&self.slice.object.metadata)
    }

    fn update(&self, tally: Tally, phase: Phase) -> Write {
        let object = self.slice.object;
        let new_ports = self.new_ports().filter(|_| phase == Phase::Final);
        let members = object.endpoints.iter().zip(&self.draft.fates);
        let mut endpoints: Vec<discovery::Endpoint> = members
            .filter_map(|(published, fate)| match (fate, phase) {
                (Fate::Stays(endpoint), Phase::Final | Phase::Early { in_place: true }) => {
                    Some(write_endpoint(endpoint))
                }
                (Fate::Stays(_) | Fate::Moves, Phase::Early { .. }) => Some(published.clone()),
                (Fate::Moves, Phase::Final) | (Fate::Leaves, _) => None,
            })
            .collect();
        if phase != (Phase::Early { in_place: false }) {
            endpoints.extend(self.draft.added.iter().copied().map(write_endpoint));
        }
        let update = discovery::EndpointSlice {
            address_type: object.address_type.clone(),
            endpoints,
            metadata: self.required.repaired(&object.metadata),
            ports: new_ports.map(write_ports).or_else(|| object.ports.clone()),
        };
        Write::UpdateSlice(update, tally)
    }

    fn new_ports(&self) -> Option<&PortSet> {
        let group = self.draft.group.filter(|_| self.draft.recycled)?;
        Some(&self.packing.groups[group].ports)
    }
}

/// Which state of a slice an update writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The first of two updates: endpoints that move are still in the slice.
    Early {
        /// Whether the slice keeps its ports. If so, this update can already write its new content.
        in_place: bool,
    },
    /// The final content.
    Final,
}

//! Decides which endpoint goes into which slice.
//!
//! The rules are those of Kubernetes' own controller (k8s.io/endpointslice). There is one group for each address family
//! and port set. An endpoint that is in a slice stays there. New endpoints go first into slices that are written
//! anyway, the fullest slice first. The remaining ones go together into the fullest slice that has room for all of
//! them, otherwise into a slice that would be deleted, otherwise into a new slice. Endpoints are never rebalanced.
//!
//! There is one difference. In Kubernetes' own controller, an endpoint with changed ports is unpublished for a moment.
//! Here, a slice that loses such an endpoint is written only after the slice that gains it (see [`Draft::waits`]).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    net::IpAddr,
};

use hashbrown::HashMap;

use crate::{
    plan::{
        draft::{Draft, Fate, Group, GroupId},
        read::{PortIds, Slice, Tuple, says},
    },
    vocabulary::endpoint::{Endpoint, Family, PortSet},
};

/// How many groups are considered for an address in a slice without a group. An address usually belongs to one group.
/// It can belong to more only if many instances share the address, and then any of the groups will do.
const GROUPS_LOOKED_AT: usize = 8;

/// All wanted endpoints and the slices they are assigned to.
pub(super) struct Packing<'a> {
    pub groups: Vec<Group<'a>>,
    pub slices: Vec<Slice<'a>>,
    /// One draft for each slice, in the same order.
    pub drafts: Vec<Draft<'a>>,
    /// The slices to create.
    pub created: Vec<(GroupId, Vec<&'a Endpoint>)>,
    group_ids: BTreeMap<(Family, PortSet), GroupId>,
    /// The group that wants each tuple.
    wanted: HashMap<Tuple, GroupId>,
}

impl<'a> Packing<'a> {
    /// Keeps what is published in place as far as possible; [`Packing::fill`] adds the rest. `fit` returns whether the
    /// metadata of a slice is as required.
    pub fn new(
        endpoints: impl Iterator<Item = &'a Endpoint>,
        mut slices: Vec<Slice<'a>>,
        mut port_ids: PortIds,
        fit: impl Fn(&Slice<'a>) -> bool,
    ) -> Self {
        // If a slice exists twice, the visible copy has to stay. Sorting by name makes the choice deterministic.
        slices.sort_by(|a, b| b.visible.cmp(&a.visible).then_with(|| a.name().cmp(b.name())));
        let drafts = slices
            .iter()
            .map(|slice| Draft {
                group: None,
                recycled: false,
                fates: vec![Fate::Leaves; slice.members.len()],
                added: Vec::new(),
                changed: 0,
                unfit: !fit(slice),
                waits: false,
            })
            .collect();
        let mut packing = Self {
            groups: Vec::new(),
            slices,
            drafts,
            created: Vec::new(),
            group_ids: BTreeMap::new(),
            wanted: HashMap::new(),
        };
        packing.want(endpoints, &mut port_ids);
        packing.keep_in_place();
        packing.recycle_with_members();
        packing.settle_moves();
        packing
    }

    fn want(&mut self, endpoints: impl Iterator<Item = &'a Endpoint>, port_ids: &mut PortIds) {
        self.wanted.reserve(endpoints.size_hint().1.unwrap_or_default());
        for endpoint in endpoints {
            let family = Family::of(endpoint.address);
            let id = *self.group_ids.entry((family, endpoint.ports.clone())).or_insert_with(|| {
                self.groups.push(Group {
                    family,
                    ports: endpoint.ports.clone(),
                    port_ids: port_ids.of_set(&endpoint.ports),
                    homeless: HashMap::new(),
                    newcomers: VecDeque::new(),
                });
                self.groups.len() - 1
            });
            let group = &mut self.groups[id];
            for port in &group.port_ids {
                self.wanted.insert((endpoint.address, *port), id);
            }
            group.homeless.entry(endpoint.address).or_insert(endpoint);
        }
    }

    fn keep_in_place(&mut self) {
        for position in 0..self.slices.len() {
            let slice = &self.slices[position];
            let (Some(family), Some(ports)) = (slice.family, &slice.ports) else { continue };
            if let Some(group) = self.group_ids.get(&(family, ports.clone())).copied() {
                self.settle(position, group);
            }
        }
    }

    /// Handles slices with ports that no group wants any more. Each is assigned to the group that most of its endpoints
    /// belong to now. So a change of ports rewrites each slice once, and no endpoint moves to another slice.
    fn recycle_with_members(&mut self) {
        if self.drafts.iter().all(|draft| draft.group.is_some()) {
            return;
        }
        let mut homeless_in = self.homeless_in();
        for position in 0..self.slices.len() {
            if self.drafts[position].group.is_none()
                && let Some(group) = self.group_of_members(position, &homeless_in)
            {
                self.drafts[position].recycled = true;
                self.settle(position, group);
                for address in self.slices[position].members.iter().filter_map(|it| it.only) {
                    if let Some(groups) = homeless_in.get_mut(&address) {
                        groups.remove(&group);
                    }
                }
            }
        }
    }

    /// For each address, the groups in which it has no slice yet.
    fn homeless_in(&self) -> HashMap<IpAddr, BTreeSet<GroupId>> {
        let mut homeless_in: HashMap<IpAddr, BTreeSet<GroupId>> = HashMap::new();
        for (id, group) in self.groups.iter().enumerate() {
            for address in group.homeless.keys() {
                homeless_in.entry(*address).or_default().insert(id);
            }
        }
        homeless_in
    }

    /// Returns the group that most members of the slice vote for. A member votes for each group that keeps one of its
    /// published tuples published. Votes for groups that match only the address of a member decide between equals.
    fn group_of_members(
        &self,
        position: usize,
        homeless_in: &HashMap<IpAddr, BTreeSet<GroupId>>,
    ) -> Option<GroupId> {
        let slice = &self.slices[position];
        let mut votes: BTreeMap<GroupId, (usize, usize)> = BTreeMap::new();
        for (address, member) in
            slice.members.iter().filter_map(|member| Some((member.only?, member)))
        {
            let kept: BTreeSet<GroupId> = slice
                .tuples(member)
                .filter_map(|tuple| self.wanted.get(&tuple).copied())
                .filter(|group| self.groups[*group].homeless.contains_key(&address))
                .collect();
            for group in kept {
                votes.entry(group).or_default().0 += 1;
            }
            let homeless_in = homeless_in.get(&address).into_iter().flatten();
            for group in homeless_in.take(GROUPS_LOOKED_AT) {
                votes.entry(*group).or_default().1 += 1;
            }
        }
        votes.into_iter().max_by_key(|(group, votes)| (*votes, Reverse(*group))).map(|(id, _)| id)
    }

    /// Assigns a slice to a group. Members that the group wants, and that have no other slice yet, stay in the slice.
    fn settle(&mut self, position: usize, id: GroupId) {
        let (slice, draft) = (&self.slices[position], &mut self.drafts[position]);
        let group = &mut self.groups[id];
        draft.group = Some(id);
        for (index, member) in slice.members.iter().enumerate() {
            let Some(address) = member.only else { continue };
            let Some(endpoint) = group.homeless.remove(&address) else { continue };
            draft.fates[index] = Fate::Stays(endpoint);
            draft.changed += usize::from(!says(&slice.object.endpoints[index], endpoint));
        }
    }

    /// Undoes [`Self::settle`].
    fn evict(&mut self, position: usize) {
        let draft = &mut self.drafts[position];
        let Some(id) = draft.group.take() else { return };
        for fate in &mut draft.fates {
            if let Fate::Stays(endpoint) = *fate {
                self.groups[id].homeless.insert(endpoint.address, endpoint);
            }
            *fate = Fate::Leaves;
        }
        draft.recycled = false;
        draft.changed = 0;
    }

    /// Determines which endpoints move, and which slices have to wait for that.
    ///
    /// A rewritten slice that waits is written in the second phase, together with everything that it publishes under
    /// its new ports. If another slice of the second phase gives up one of these tuples, no slice might hold the tuple
    /// in between. In that case the rewritten slice is not kept: it is evicted from its group.
    fn settle_moves(&mut self) {
        loop {
            let moving = self.moving();
            self.mark_moves(&moving);
            let knots: Vec<usize> = (0..self.drafts.len())
                .filter(|position| self.gains_what_moves(*position, &moving))
                .collect();
            if knots.is_empty() {
                return;
            }
            for position in knots {
                self.evict(position);
            }
        }
    }

    /// The tuples that are published and wanted, and that no single slice holds both before and after the plan.
    fn moving(&self) -> HashSet<Tuple> {
        let mut moving = HashSet::new();
        for position in 0..self.slices.len() {
            moving.extend(self.given_up(position).map(|(_, tuple)| tuple));
        }
        if moving.is_empty() {
            return moving;
        }
        for (position, slice) in self.slices.iter().enumerate() {
            for (index, member) in slice.members.iter().enumerate() {
                for tuple in slice.tuples(member) {
                    if self.holds_on(position, index, tuple) {
                        moving.remove(&tuple);
                    }
                }
            }
        }
        moving
    }

    /// The wanted tuples that a slice publishes before the plan but not after it, each with the index of its member.
    fn given_up(&self, position: usize) -> impl Iterator<Item = (usize, Tuple)> {
        let slice = &self.slices[position];
        slice.members.iter().enumerate().flat_map(move |(index, member)| {
            slice
                .tuples(member)
                .filter(move |tuple| {
                    !self.holds_on(position, index, *tuple) && self.wanted.contains_key(tuple)
                })
                .map(move |tuple| (index, tuple))
        })
    }

    /// Whether a member that publishes a tuple still publishes it after the plan.
    fn holds_on(&self, position: usize, index: usize, (_, port): Tuple) -> bool {
        let draft = &self.drafts[position];
        let stays = matches!(draft.fates[index], Fate::Stays(_));
        let ports = draft.group.filter(|_| draft.recycled).map(|id| &self.groups[id].port_ids);
        stays && ports.is_none_or(|ports| ports.contains(&port))
    }

    /// The wanted addresses that no slice holds both before and after the plan, whatever their ports. Such an instance has
    /// new ports, while others of its slice keep theirs. It must not be missing between two writes either (P3).
    fn arriving(&self) -> HashSet<IpAddr> {
        let mut arriving: HashSet<IpAddr> = (0..self.slices.len())
            .flat_map(|position| self.leaving(position))
            .map(|it| it.1)
            .collect();
        if !arriving.is_empty() {
            let homeless: HashSet<IpAddr> =
                self.groups.iter().flat_map(|group| group.homeless.keys().copied()).collect();
            arriving.retain(|address| homeless.contains(address));
        }
        if !arriving.is_empty() {
            for fate in self.drafts.iter().flat_map(|draft| &draft.fates) {
                if let Fate::Stays(endpoint) = fate {
                    arriving.remove(&endpoint.address);
                }
            }
        }
        arriving
    }

    /// The members that do not stay in their slice, each with its index and its address.
    fn leaving(&self, position: usize) -> impl Iterator<Item = (usize, IpAddr)> {
        let members = self.slices[position].members.iter().enumerate();
        members.zip(&self.drafts[position].fates).filter_map(|((index, member), fate)| {
            let stays = matches!(fate, Fate::Stays(_));
            member.only.filter(|_| !stays).map(|address| (index, address))
        })
    }

    /// The members of a slice that another slice has to publish before this one gives them up.
    fn movers(
        &self,
        position: usize,
        moving: &HashSet<Tuple>,
        arriving: &HashSet<IpAddr>,
    ) -> BTreeSet<usize> {
        let mut movers = BTreeSet::new();
        if !moving.is_empty() {
            let given_up = self.given_up(position);
            movers.extend(given_up.filter(|(_, it)| moving.contains(it)).map(|(index, _)| index));
        }
        if !arriving.is_empty() {
            let leaving = self.leaving(position);
            movers.extend(leaving.filter(|(_, it)| arriving.contains(it)).map(|(index, _)| index));
        }
        movers
    }

    fn mark_moves(&mut self, moving: &HashSet<Tuple>) {
        let arriving = self.arriving();
        for position in 0..self.drafts.len() {
            let movers = self.movers(position, moving, &arriving);
            let draft = &mut self.drafts[position];
            draft.waits = !movers.is_empty();
            for (index, fate) in draft.fates.iter_mut().enumerate() {
                match fate {
                    Fate::Stays(_) => {}
                    Fate::Leaves | Fate::Moves if movers.contains(&index) => *fate = Fate::Moves,
                    Fate::Leaves | Fate::Moves => *fate = Fate::Leaves,
                }
            }
        }
    }

    fn gains_what_moves(&self, position: usize, moving: &HashSet<Tuple>) -> bool {
        let draft = &self.drafts[position];
        let Some(id) = draft.group.filter(|_| draft.recycled && draft.waits) else {
            return false;
        };
        let ports = &self.groups[id].port_ids;
        draft.fates.iter().any(|fate| match fate {
            Fate::Stays(endpoint) => {
                ports.iter().any(|port| moving.contains(&(endpoint.address, *port)))
            }
            Fate::Leaves | Fate::Moves => false,
        })
    }
}

//! Which endpoint goes into which slice.
//!
//! The rules are those of upstream's controller (k8s.io/endpointslice): one group per address
//! family and port set; who is in a slice stays there; newcomers go where something is written
//! anyway, the fullest first; else all of them into the fullest slice that has room; else into a
//! slice that would be deleted, else into a new one. Nothing is ever rebalanced.
//!
//! It differs in one thing. Upstream lets an endpoint whose ports change blink; here the slices
//! that lose it wait until the ones that gain it are written (see [`Draft::waits`]).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    net::IpAddr,
};

use hashbrown::HashMap;

use super::{
    super::endpoint::{Endpoint, Family, PortSet},
    draft::{Draft, Fate, Group, GroupId},
    read::{PortIds, Slice, Tuple, says},
};

/// How many groups are looked at to find the one that an address of a slice without a group belongs
/// to. An address has one, but for many instances behind one address, and then one group is as good
/// as the other.
const GROUPS_LOOKED_AT: usize = 8;

/// Everything that is wanted, in its place.
pub(super) struct Packing<'a> {
    pub groups: Vec<Group<'a>>,
    pub slices: Vec<Slice<'a>>,
    /// One for each slice.
    pub drafts: Vec<Draft<'a>>,
    /// Slices to create.
    pub created: Vec<(GroupId, Vec<&'a Endpoint>)>,
    group_ids: BTreeMap<(Family, PortSet), GroupId>,
    /// Which group wants a tuple.
    wanted: HashMap<Tuple, GroupId>,
}

impl<'a> Packing<'a> {
    /// `fit` tells whether a slice's metadata is as it must be.
    pub fn new(
        endpoints: impl Iterator<Item = &'a Endpoint>,
        mut slices: Vec<Slice<'a>>,
        mut port_ids: PortIds,
        max: usize,
        fit: impl Fn(&Slice<'a>) -> bool,
        closed: &HashSet<String>,
    ) -> Self {
        // Of two copies the one that is seen has to stay; the name makes it deterministic.
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
        packing.fill(max, closed);
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

    /// Gives every slice whose ports nobody wants any more to the group that most of its endpoints
    /// belong to now, so that a change of ports rewrites each slice once and nobody moves.
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

    /// The groups in which each address is homeless.
    fn homeless_in(&self) -> HashMap<IpAddr, BTreeSet<GroupId>> {
        let mut homeless_in: HashMap<IpAddr, BTreeSet<GroupId>> = HashMap::new();
        for (id, group) in self.groups.iter().enumerate() {
            for address in group.homeless.keys() {
                homeless_in.entry(*address).or_default().insert(id);
            }
        }
        homeless_in
    }

    /// Where something published stays published counts before where the address alone does.
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

    /// Lets those members of a slice stay that the group wants and has not in another slice.
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

    /// Gives up what [`Self::settle`] did.
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

    /// Finds out who moves and which slices have to wait for that.
    ///
    /// A rewritten slice that waits is written in the second phase, together with all that it
    /// publishes under its new ports. If another slice of the second phase gives that up, nothing
    /// holds it in between; then the first one is not worth keeping.
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

    /// What is published and wanted, and in no slice both now and afterwards.
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

    /// The wanted tuples that a slice publishes now and not afterwards, with the member.
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

    /// Whether a member that publishes a tuple does so afterwards.
    fn holds_on(&self, position: usize, index: usize, (_, port): Tuple) -> bool {
        let draft = &self.drafts[position];
        let stays = matches!(draft.fates[index], Fate::Stays(_));
        let ports = draft.group.filter(|_| draft.recycled).map(|id| &self.groups[id].port_ids);
        stays && ports.is_none_or(|ports| ports.contains(&port))
    }

    fn mark_moves(&mut self, moving: &HashSet<Tuple>) {
        for position in 0..self.drafts.len() {
            let movers: BTreeSet<usize> = if moving.is_empty() {
                BTreeSet::new()
            } else {
                self.given_up(position)
                    .filter(|(_, tuple)| moving.contains(tuple))
                    .map(|(index, _)| index)
                    .collect()
            };
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

    fn fill(&mut self, max: usize, closed: &HashSet<String>) {
        for group in &mut self.groups {
            group.newcomers = group.homeless.drain().map(|(_, endpoint)| endpoint).collect();
            group.newcomers.make_contiguous().sort_unstable_by_key(|endpoint| endpoint.address);
        }
        let mut slices_of: Vec<Vec<usize>> = vec![Vec::new(); self.groups.len()];
        for (position, draft) in self.drafts.iter().enumerate() {
            let is_closed = closed.contains(self.slices[position].name());
            // A rewritten slice that waits takes nobody in: the newcomer would wait, too.
            if let Some(id) = draft.group.filter(|_| !(draft.recycled && draft.waits || is_closed))
            {
                slices_of[id].push(position);
            }
        }
        for (id, slices) in slices_of.iter().enumerate() {
            self.fill_dirty(id, slices, max);
        }
        let mut spare = self.spare(closed);
        for (id, slices) in slices_of.iter().enumerate() {
            loop {
                // Again after each full slice: what is left over may fit into one that is there.
                self.fill_clean(id, slices, max);
                if self.groups[id].newcomers.is_empty() {
                    break;
                }
                let newcomers = self.take(id, max);
                let family = self.groups[id].family;
                if let Some(position) = spare.get_mut(&family).and_then(Vec::pop) {
                    let draft = &mut self.drafts[position];
                    draft.recycled |= draft.group != Some(id);
                    draft.group = Some(id);
                    draft.added = newcomers;
                } else {
                    self.created.push((id, newcomers));
                }
            }
        }
    }

    fn fill_dirty(&mut self, id: GroupId, slices: &[usize], max: usize) {
        let mut dirty: Vec<(Reverse<usize>, usize)> = slices
            .iter()
            .filter(|position| self.drafts[**position].is_dirty())
            .map(|position| (Reverse(self.occupied(*position)), *position))
            .collect();
        dirty.sort_unstable();
        for (Reverse(occupied), position) in dirty {
            let newcomers = self.take(id, max.saturating_sub(occupied));
            self.drafts[position].added.extend(newcomers);
        }
    }

    /// All who are left go into one slice or none does: a second one would be a second write that
    /// a new slice does not cost.
    fn fill_clean(&mut self, id: GroupId, slices: &[usize], max: usize) {
        let count = self.groups[id].newcomers.len();
        let fullest = slices
            .iter()
            .filter(|position| !self.drafts[**position].is_dirty())
            .map(|position| (self.occupied(*position), Reverse(*position)))
            .filter(|(occupied, _)| occupied + count <= max)
            .max();
        if let Some((_, Reverse(position))) = fullest.filter(|_| count > 0) {
            let newcomers = self.take(id, count);
            self.drafts[position].added.extend(newcomers);
        }
    }

    /// Room that is taken during the first phase; who moves is there until the second.
    fn occupied(&self, position: usize) -> usize {
        let draft = &self.drafts[position];
        draft.stay() + draft.move_away() + draft.added.len()
    }

    /// The slices that would be deleted and need not wait, the last one first.
    fn spare(&self, closed: &HashSet<String>) -> BTreeMap<Family, Vec<usize>> {
        let mut spare: BTreeMap<Family, Vec<usize>> = BTreeMap::new();
        for (position, (slice, draft)) in self.slices.iter().zip(&self.drafts).enumerate().rev() {
            let is_spare = draft.is_empty() && !draft.waits && !closed.contains(slice.name());
            if let Some(family) = slice.family.filter(|_| is_spare) {
                spare.entry(family).or_default().push(position);
            }
        }
        spare
    }

    fn take(&mut self, id: GroupId, count: usize) -> Vec<&'a Endpoint> {
        let newcomers = &mut self.groups[id].newcomers;
        newcomers.drain(..count.min(newcomers.len())).collect()
    }
}

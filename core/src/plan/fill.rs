//! Puts the endpoints that no published slice holds into slices.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
};

use crate::{
    plan::{draft::GroupId, pack::Packing},
    vocabulary::endpoint::{Endpoint, Family},
};

impl<'a> Packing<'a> {
    pub(super) fn fill(&mut self, max: usize, closed: &HashSet<String>) {
        for group in &mut self.groups {
            group.newcomers = group.homeless.drain().map(|(_, endpoint)| endpoint).collect();
            group.newcomers.make_contiguous().sort_unstable_by_key(|endpoint| endpoint.address);
        }
        let mut slices_of: Vec<Vec<usize>> = vec![Vec::new(); self.groups.len()];
        for (position, draft) in self.drafts.iter().enumerate() {
            let is_closed = closed.contains(self.slices[position].name());
            // A rewritten slice that waits gets no new endpoints, because they would have to wait, too.
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
                // Try this again after each full slice: the remaining endpoints may now fit into an existing slice.
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

    /// Adds the remaining endpoints to one slice, or to none if no slice has room for all of them. Splitting them over
    /// two slices would cost a second write, which a new slice does not.
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

    /// The number of places that are taken during the first phase. Endpoints that move count, because they stay until
    /// the second phase.
    fn occupied(&self, position: usize) -> usize {
        let draft = &self.drafts[position];
        draft.stay() + draft.move_away() + draft.added.len()
    }

    /// The slices that would be deleted and that do not have to wait, by family. The last slice comes first.
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

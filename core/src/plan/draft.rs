//! The planned changes to the published slices.

use std::{collections::VecDeque, net::IpAddr};

use hashbrown::HashMap;

use crate::{
    plan::read::PortId,
    vocabulary::endpoint::{Endpoint, Family, PortSet},
};

/// The index of a group.
pub(super) type GroupId = usize;

/// The wanted endpoints that may share a slice: those of one family with the same ports.
pub(super) struct Group<'a> {
    pub family: Family,
    pub ports: PortSet,
    pub port_ids: Vec<PortId>,
    /// Endpoints that are not assigned to a slice yet.
    pub homeless: HashMap<IpAddr, &'a Endpoint>,
    /// Endpoints that no published slice holds, in order of their addresses.
    pub newcomers: VecDeque<&'a Endpoint>,
}

/// What happens to an endpoint of a published slice.
#[derive(Clone, Copy)]
pub(super) enum Fate<'a> {
    /// It stays in its slice.
    Stays(&'a Endpoint),
    /// It is not wanted, or another slice keeps it published.
    Leaves,
    /// It is still wanted, and no other slice publishes it yet.
    Moves,
}

/// What happens to a published slice.
pub(super) struct Draft<'a> {
    /// The group that the slice is to hold. If there is none, the slice is deleted.
    pub group: Option<GroupId>,
    /// Whether the ports of the slice have to be rewritten for that group.
    pub recycled: bool,
    /// One fate for each endpoint of the slice.
    pub fates: Vec<Fate<'a>>,
    /// The endpoints that are added.
    pub added: Vec<&'a Endpoint>,
    /// The number of endpoints that stay, but with conditions or details that differ from what is published.
    pub changed: usize,
    /// Whether the slice has to be written for another reason, such as a lost label.
    pub unfit: bool,
    /// Whether the slice gives up something that another slice has to publish first.
    pub waits: bool,
}

impl Draft<'_> {
    pub fn stay(&self) -> usize {
        self.fates.iter().filter(|fate| matches!(fate, Fate::Stays(_))).count()
    }

    pub fn move_away(&self) -> usize {
        self.fates.iter().filter(|fate| matches!(fate, Fate::Moves)).count()
    }

    pub fn leave(&self) -> usize {
        self.fates.len() - self.stay() - self.move_away()
    }

    /// Whether the slice is written in the first phase in any case. Then one more endpoint in it costs no extra write.
    pub fn is_dirty(&self) -> bool {
        self.unfit || self.recycled || self.changed > 0 || self.leave() > 0
    }

    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.stay() == 0
    }
}

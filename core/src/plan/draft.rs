//! What becomes of the slices that are published.

use std::{collections::VecDeque, net::IpAddr};

use hashbrown::HashMap;

use super::{
    super::endpoint::{Endpoint, Family, PortSet},
    read::PortId,
};

/// The position of a group.
pub(super) type GroupId = usize;

/// The wanted endpoints that may share a slice.
pub(super) struct Group<'a> {
    pub family: Family,
    pub ports: PortSet,
    pub port_ids: Vec<PortId>,
    /// Those that have no slice yet.
    pub homeless: HashMap<IpAddr, &'a Endpoint>,
    /// Those that found none, in order.
    pub newcomers: VecDeque<&'a Endpoint>,
}

/// What becomes of an endpoint of a published slice.
#[derive(Clone, Copy)]
pub(super) enum Fate<'a> {
    /// It stays where it is.
    Stays(&'a Endpoint),
    /// It is not wanted, or somebody else keeps it published.
    Leaves,
    /// It is still wanted, and nobody else publishes it yet.
    Moves,
}

/// What becomes of a published slice.
pub(super) struct Draft<'a> {
    /// The group it is to hold. None: it goes.
    pub group: Option<GroupId>,
    /// Whether its ports have to be rewritten for that.
    pub recycled: bool,
    /// One for each of its endpoints.
    pub fates: Vec<Fate<'a>>,
    /// Who joins.
    pub added: Vec<&'a Endpoint>,
    /// How many stay with other conditions or details than are published.
    pub changed: usize,
    /// Whether it has to be written for another reason, like a lost label.
    pub unfit: bool,
    /// Whether it gives up something that another slice has to publish first.
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

    /// Whether it is written in the first phase in any case, so that one more endpoint in it costs
    /// nothing.
    pub fn is_dirty(&self) -> bool {
        self.unfit || self.recycled || self.changed > 0 || self.leave() > 0
    }

    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.stay() == 0
    }
}

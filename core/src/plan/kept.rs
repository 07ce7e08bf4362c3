//! A plan made of what has changed since another one.
//!
//! After a plan without a write, the slices are as it was decided. Then only these can differ from the next decision:
//! slices that have changed since, and addresses of instances about which was decided anew. A plan for them alone has
//! the writes of [`super::build`], which plans for everything and is what tests and the simulation compare with.
//!
//! An endpoint that no slice holds yet, or that has other ports than before, needs the plan for everything: its place
//! depends on all slices.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};

use crate::{
    plan::{
        build::PlanPremise,
        diff,
        kept_listing::KeptListing,
        read::ports_of,
        target::{EndpointsMode, Published, Target},
        write::{Plan, Write},
    },
    vocabulary::endpoint::{Endpoint, PortSet},
};

/// More addresses than this are planned with all others if they are half of them.
const MANY: usize = 512;

/// The published objects after a plan, and what in them may differ from the decision.
#[derive(Debug)]
pub struct KeptPlan {
    premise: PlanPremise,
    slices: Vec<Arc<EndpointSlice>>,
    by_name: BTreeMap<Arc<str>, Arc<EndpointSlice>>,
    /// The names of the slices that hold an address.
    holding: BTreeSet<(IpAddr, Arc<str>)>,
    /// The addresses that may not be published as it was decided.
    open: BTreeSet<IpAddr>,
    /// Those of them about which was decided anew.
    decided: BTreeSet<IpAddr>,
    /// The slices that may not be as they should.
    open_slices: BTreeSet<Arc<str>>,
    /// `None` if it is not known whether the Endpoints object says what was decided.
    listing: Option<KeptListing>,
    /// Whether the Endpoints object waits for the next plan, since the last plan for everything.
    defers_endpoints: bool,
}

/// What is published now, and the addresses about which was decided anew.
pub struct Since<'a> {
    /// The operator's slices of the Service.
    pub slices: &'a [Arc<EndpointSlice>],
    /// The operator's Endpoints object.
    pub endpoints: Option<&'a Arc<Endpoints>>,
    /// The addresses that instances had or have about which was decided anew since the last plan.
    pub touched: BTreeSet<IpAddr>,
    /// The time that consumers get as the time of the change.
    pub wall: Timestamp,
}

/// A plan for what has changed.
#[derive(Debug)]
pub struct ChangedPlan {
    /// The writes of slices.
    pub slices: Plan,
    /// Whether the Endpoints object may have to be written. Only a plan for everything says how.
    pub endpoints_may_differ: bool,
}

impl ChangedPlan {
    /// How it differs from the plan for everything at the same moment, if it does.
    pub fn difference(&self, all: &Plan) -> Option<String> {
        let of_slices = all.phases.iter().map(|phase| {
            phase.iter().filter(|write| !write.is_of_endpoints()).cloned().collect::<Vec<_>>()
        });
        let slices = Plan { phases: of_slices.filter(|phase| !phase.is_empty()).collect() };
        if self.slices != slices {
            return Some(format!("planned [{}], and for everything [{slices}]", self.slices));
        }
        let lists = all.writes().any(Write::is_of_endpoints);
        (lists && !self.endpoints_may_differ).then(|| format!("no write of Endpoints in [{all}]"))
    }
}

impl KeptPlan {
    /// What is published after a plan for everything that had no write of a slice. `listed` says that it had none of the
    /// Endpoints object either.
    pub fn after(
        premise: PlanPremise,
        slices: &[Arc<EndpointSlice>],
        endpoints: Option<&Arc<Endpoints>>,
        listed: bool,
    ) -> Self {
        let mut kept = Self {
            premise,
            slices: Vec::new(),
            by_name: BTreeMap::new(),
            holding: BTreeSet::new(),
            open: BTreeSet::new(),
            decided: BTreeSet::new(),
            open_slices: BTreeSet::new(),
            listing: None,
            defers_endpoints: false,
        };
        kept.settle(slices, endpoints, listed);
        kept
    }

    /// Notes that a plan for everything had no write of a slice. `listed` as in [`Self::after`].
    pub fn settle(
        &mut self,
        slices: &[Arc<EndpointSlice>],
        endpoints: Option<&Arc<Endpoints>>,
        listed: bool,
    ) {
        self.follow(slices);
        self.confirm();
        self.defers_endpoints = false;
        self.listing = listed.then(|| KeptListing::new(&self.premise, slices, endpoints));
    }

    /// Whether the plan rests on the same premise.
    pub fn rests_on(&self, premise: &PlanPremise) -> bool {
        self.premise == *premise
    }

    /// Notes that a plan for everything has writes. It is not known what they come to. `touched` as in [`Since`].
    pub fn leave_open(&mut self, touched: BTreeSet<IpAddr>) {
        self.open.extend(touched);
        self.listing = None;
        self.defers_endpoints = false;
    }

    /// Leaves the Endpoints object to the next plan, so that the slices are written first. Returns whether it may: it may
    /// wait once. Slices of which the writes fail, or which change all the time, must not keep a dead instance in it.
    pub fn defer_endpoints(&mut self) -> bool {
        !std::mem::replace(&mut self.defers_endpoints, true)
    }

    /// Plans for what has changed. `wanted_at` returns all wanted endpoints at some addresses, and may return others.
    /// `restrain` receives wanted endpoints and the slices that hold them, and returns the endpoints to publish now. `None`
    /// if everything has to be planned.
    pub fn plan(
        &mut self,
        since: Since<'_>,
        wanted_at: impl FnOnce(&BTreeSet<IpAddr>) -> Vec<Endpoint>,
        restrain: impl FnOnce(Vec<Endpoint>, &[Arc<EndpointSlice>]) -> Vec<Endpoint>,
    ) -> Option<ChangedPlan> {
        let Since { slices, endpoints, touched, wall } = since;
        self.follow(slices);
        self.open.extend(&touched);
        self.decided.extend(touched);
        let looked_at = self.slices_to_look_at();
        // One that is being deleted keeps no endpoint published, and is there for an unknown time.
        if looked_at.iter().any(|slice| slice.metadata.deletion_timestamp.is_some()) {
            return None;
        }
        let held = Held::of(&looked_at);
        if held.addresses.len() > MANY && held.addresses.len() * 2 > self.holding.len() {
            return None;
        }
        let mut wanted = wanted_at(&self.open.union(&held.addresses).copied().collect());
        // An address of one of the slices may have further endpoints in others, with other ports, which are not open.
        wanted.retain(|endpoint| {
            self.open.contains(&endpoint.address)
                || held.endpoints.contains(&(endpoint.address, endpoint.ports.clone()))
        });
        let chosen = restrain(wanted.clone(), &looked_at);
        let is_restrained = chosen != wanted;
        // What waits is listed as it is published.
        self.listing.take_if(|_| is_restrained);
        let target = Target {
            endpoints_object: EndpointsMode::LeaveAlone,
            ..self.premise.target(chosen, wall)
        };
        let published =
            Published { slices: looked_at.iter().map(AsRef::as_ref).collect(), endpoints: None };
        let plan = diff::plan(&target, published);
        if plan.phases.len() > 1 || !plan.writes().all(|write| self.is_in_place(write)) {
            return None;
        }
        let is_listed = self.listing.as_mut().is_some_and(|listing| {
            listing.agrees(&self.premise, endpoints, &target.endpoints, &self.decided)
        });
        if plan.is_empty() && !is_restrained {
            self.confirm();
            self.listing.take_if(|_| !is_listed);
        }
        Some(ChangedPlan { slices: plan, endpoints_may_differ: !is_listed })
    }

    /// Takes over the slices as they are now. Everything in a slice that has changed is open.
    fn follow(&mut self, slices: &[Arc<EndpointSlice>]) {
        let same = |(a, b): (&Arc<_>, &Arc<_>)| Arc::ptr_eq(a, b);
        if self.slices.len() == slices.len() && self.slices.iter().zip(slices).all(same) {
            return;
        }
        let [before, after] =
            [&*self.slices, slices].map(|all| all.iter().map(Arc::as_ptr).collect::<HashSet<_>>());
        for slice in std::mem::take(&mut self.slices) {
            if after.contains(&Arc::as_ptr(&slice)) {
                continue;
            }
            let name = name_of(&slice);
            for address in addresses_of(&slice) {
                self.holding.remove(&(address, name.clone()));
                self.open.insert(address);
            }
            self.by_name.remove(&name);
            self.open_slices.remove(&name);
        }
        for slice in slices.iter().filter(|slice| !before.contains(&Arc::as_ptr(slice))) {
            let name = name_of(slice);
            for address in addresses_of(slice) {
                self.holding.insert((address, name.clone()));
                self.open.insert(address);
            }
            self.by_name.insert(name.clone(), slice.clone());
            self.open_slices.insert(name);
        }
        self.slices = slices.to_vec();
    }

    /// The slices that are open, and those that hold an open address.
    fn slices_to_look_at(&self) -> Vec<Arc<EndpointSlice>> {
        let mut names = self.open_slices.clone();
        let least: Arc<str> = Arc::from("");
        for address in &self.open {
            let holding = self.holding.range((*address, least.clone())..);
            let holding = holding.take_while(|(held, _)| held == address);
            names.extend(holding.map(|(_, name)| name.clone()));
        }
        names.iter().filter_map(|name| self.by_name.get(name).cloned()).collect()
    }

    /// Whether a write changes a slice without an endpoint that it did not hold, and without other ports.
    fn is_in_place(&self, write: &Write) -> bool {
        match write {
            Write::UpdateSlice(slice, tally) => {
                let before = self.by_name.get(&*name_of(slice));
                tally.added == 0 && before.is_some_and(|before| before.ports == slice.ports)
            }
            Write::DeleteSlice { .. } => true,
            Write::CreateSlice(_)
            | Write::CreateEndpoints(_)
            | Write::UpdateEndpoints(..)
            | Write::DeleteEndpoints { .. } => false,
        }
    }

    /// The slices are as it was decided.
    fn confirm(&mut self) {
        self.open.clear();
        self.decided.clear();
        self.open_slices.clear();
    }
}

/// What some slices hold.
struct Held {
    addresses: BTreeSet<IpAddr>,
    endpoints: HashSet<(IpAddr, PortSet)>,
}

impl Held {
    fn of(slices: &[Arc<EndpointSlice>]) -> Self {
        let mut held = Self { addresses: BTreeSet::new(), endpoints: HashSet::new() };
        for slice in slices {
            let ports = ports_of(slice);
            for address in addresses_of(slice) {
                held.addresses.insert(address);
                held.endpoints.extend(ports.clone().map(|ports| (address, ports)));
            }
        }
        held
    }
}

fn name_of(slice: &EndpointSlice) -> Arc<str> {
    slice.metadata.name.as_deref().unwrap_or_default().into()
}

fn addresses_of(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    let texts = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    texts.filter_map(|text| text.parse().ok())
}

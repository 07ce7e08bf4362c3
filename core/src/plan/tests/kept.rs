//! A plan that is made of what has changed equals the one for everything, whatever has happened.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Endpoints;
use proptest::{collection::vec, prelude::*};

use super::{
    edits::{Edit, apply, edit},
    properties::PORT_SETS,
    *,
};
use crate::plan::{
    build::PlanPremise,
    kept::{ChangedPlan, KeptPlan, Since},
};

const ADDRESSES: usize = 10;

#[derive(Debug, Clone)]
enum Event {
    /// Which endpoints an address has from now on: none, or those of an item of [`PORT_SETS`], in a state.
    Want(usize, Option<(usize, u8)>),
    /// The state of an address changes, and its ports do not.
    Turn(usize, u8),
    /// An address that is in no slice has to wait, or not any longer.
    Hold(usize, bool),
    /// A user edits what is published.
    Edit(Edit),
    /// The writes of the next plans arrive, or are lost.
    Arrive(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let state = 0..4_u8;
    // Most instances have the same ports.
    let sets = prop_oneof![3 => Just(0), 1 => 0..PORT_SETS.len()];
    let want = proptest::option::of((sets, state.clone()));
    prop_oneof![
        4 => (0..ADDRESSES, want).prop_map(|(at, want)| Event::Want(at, want)),
        4 => (0..ADDRESSES, state).prop_map(|(at, state)| Event::Turn(at, state)),
        1 => (0..ADDRESSES, any::<bool>()).prop_map(|(at, is)| Event::Hold(at, is)),
        2 => edit().prop_map(Event::Edit),
        1 => any::<bool>().prop_map(Event::Arrive),
    ]
}

/// A Service, what is wanted for it, and the plan that is kept.
struct Course {
    world: World,
    server: Server,
    wanted: BTreeMap<IpAddr, (usize, u8)>,
    held: BTreeSet<IpAddr>,
    touched: BTreeSet<IpAddr>,
    arrives: bool,
    kept: Option<KeptPlan>,
    slices: BTreeMap<String, Arc<EndpointSlice>>,
    list: Option<Arc<Endpoints>>,
    /// How many plans were made of what has changed.
    changed: usize,
}

fn address(at: usize) -> IpAddr {
    let text = if at < 7 { format!("10.0.0.{}", at + 1) } else { format!("fd00::{at}") };
    text.parse().unwrap()
}

fn premise(world: &World) -> PlanPremise {
    PlanPremise {
        owner: world.owner.clone(),
        service: world.service.clone(),
        publish_not_ready: false,
        max_endpoints_per_slice: world.max,
        endpoints_object: world.mode,
    }
}

fn endpoints_at(address: IpAddr, (sets, state): (usize, u8)) -> Vec<Endpoint> {
    let of_set = |set: &&[(&str, u16)]| {
        let mut endpoint = endpoint(&address.to_string(), &ports(set));
        match state {
            0 => not_ready(&mut endpoint),
            1 => (endpoint.conditions, endpoint.in_endpoints) = (DRAINING, None),
            2 => endpoint.pod = None,
            _ => {}
        }
        endpoint
    };
    PORT_SETS[sets].iter().map(of_set).collect()
}

impl Course {
    fn begin(max: usize, mode: EndpointsMode) -> Self {
        let trigger_time = Some(Timestamp::UNIX_EPOCH);
        let world = World { max, mode, trigger_time, ..World::new() };
        Self {
            world,
            server: Server::default(),
            wanted: (0..ADDRESSES).map(|at| (address(at), (0, 3))).collect(),
            held: BTreeSet::new(),
            touched: BTreeSet::new(),
            arrives: true,
            kept: None,
            slices: BTreeMap::new(),
            list: None,
            changed: 0,
        }
    }

    fn happen(&mut self, event: &Event, serial: usize) {
        match event {
            Event::Want(at, want) => {
                self.touched.insert(address(*at));
                match want {
                    Some(want) => drop(self.wanted.insert(address(*at), *want)),
                    None => drop(self.wanted.remove(&address(*at))),
                }
            }
            Event::Turn(at, state) => {
                if let Some(wanted) = self.wanted.get_mut(&address(*at)) {
                    wanted.1 = *state;
                    self.touched.insert(address(*at));
                }
            }
            Event::Hold(at, true) => drop(self.held.insert(address(*at))),
            Event::Hold(at, false) => drop(self.held.remove(&address(*at))),
            Event::Edit(edit) => apply(edit, &mut self.server, serial),
            Event::Arrive(arrives) => self.arrives = *arrives,
        }
    }

    /// What is published. An object that has not changed is the same allocation, as in a cache.
    fn look(&mut self) -> Vec<Arc<EndpointSlice>> {
        self.slices.retain(|name, _| self.server.slices.contains_key(name));
        for (name, slice) in &self.server.slices {
            match self.slices.get(name) {
                Some(known) if **known == *slice => {}
                _ => drop(self.slices.insert(name.clone(), Arc::new(slice.clone()))),
            }
        }
        if self.list.as_deref() != self.server.endpoints.as_ref() {
            self.list = self.server.endpoints.clone().map(Arc::new);
        }
        self.slices.values().cloned().collect()
    }

    fn restrain(&self, wanted: Vec<Endpoint>, slices: &[Arc<EndpointSlice>]) -> Vec<Endpoint> {
        let texts: BTreeSet<&str> = slices
            .iter()
            .flat_map(|slice| &slice.endpoints)
            .flat_map(|endpoint| endpoint.addresses.iter().map(String::as_str))
            .collect();
        let may = |endpoint: &Endpoint| {
            !self.held.contains(&endpoint.address) || texts.contains(&*endpoint.address.to_string())
        };
        wanted.into_iter().filter(may).collect()
    }

    /// Plans in both ways, and carries the writes out if they arrive.
    fn plan(&mut self) -> Result<(), TestCaseError> {
        let slices = self.look();
        let wanted_at = |address: &IpAddr| {
            self.wanted.get(address).map_or_else(Vec::new, |it| endpoints_at(*address, *it))
        };
        let everything: Vec<Endpoint> = self.wanted.keys().flat_map(wanted_at).collect();
        let chosen = self.restrain(everything.clone(), &slices);
        let is_restrained = chosen != everything;
        let all = self.world.plan(&self.server, &chosen);

        let touched = std::mem::take(&mut self.touched);
        let since = Since {
            slices: &slices,
            endpoints: self.list.as_ref(),
            touched: touched.clone(),
            wall: Timestamp::UNIX_EPOCH,
        };
        let mut kept = self.kept.take();
        let changed = kept.as_mut().and_then(|kept| {
            kept.plan(
                since,
                |addresses| addresses.iter().flat_map(wanted_at).collect(),
                |wanted, slices| self.restrain(wanted, slices),
            )
        });
        if let Some(changed) = &changed {
            self.changed += 1;
            prop_assert_eq!(changed.difference(&all), None, "wanted {:?}", self.wanted);
        }
        let plan = match changed {
            Some(ChangedPlan { slices, endpoints_may_differ })
                if !(endpoints_may_differ && slices.is_empty()) =>
            {
                slices
            }
            _ => {
                let (list, is_listed) = (self.list.as_ref(), all.is_empty());
                let is_settled = !is_restrained && all.writes().all(Write::is_of_endpoints);
                match &mut kept {
                    Some(kept) if is_settled => kept.settle(&slices, list, is_listed),
                    Some(kept) => kept.leave_open(touched),
                    None if is_settled => {
                        let premise = premise(&self.world);
                        kept = Some(KeptPlan::after(premise, &slices, list, is_listed));
                    }
                    None => {}
                }
                all
            }
        };
        self.kept = kept;
        if self.arrives {
            let mut sent = model::Sent::new();
            plan.writes().for_each(|write| self.server.send(write, &mut sent));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_plan_of_what_has_changed_has_the_writes_of_the_plan_for_everything(
        max in 2..5_usize,
        publishes in any::<bool>(),
        events in vec((event(), any::<bool>()), 1..40),
    ) {
        let mode = if publishes { EndpointsMode::Publish } else { EndpointsMode::LeaveAlone };
        let mut course = Course::begin(max, mode);
        for (serial, (event, plans)) in events.iter().enumerate() {
            course.happen(event, serial);
            if *plans {
                course.plan()?;
            }
        }
    }
}

#[test]
fn deaths_and_flips_are_planned_from_what_has_changed_and_a_join_is_not() {
    let mut course = Course::begin(3, EndpointsMode::LeaveAlone);
    let step = |course: &mut Course, event: Event| {
        course.happen(&event, 0);
        let before = course.changed;
        course.plan().unwrap();
        course.changed > before
    };
    let nothing = Event::Arrive(true);
    while course.changed == 0 {
        step(&mut course, nothing.clone());
    }
    assert!(step(&mut course, Event::Want(2, None)), "a death");
    assert!(step(&mut course, Event::Turn(4, 0)), "a flip");
    assert!(step(&mut course, nothing.clone()), "their slices");
    assert!(!step(&mut course, Event::Want(2, Some((0, 3)))), "a join");
    assert!(step(&mut course, nothing), "its slice");
}

#[test]
fn the_endpoints_object_is_planned_only_if_it_may_have_to_change() {
    const ROOM: usize = 1_000;
    let everything = fleet(0..ROOM + 3, &ports(&[("http", 8080)]));
    let mut course = Course::begin(100, EndpointsMode::Publish);
    course.server = course.world.published(&everything);
    let published = course.look();
    let mut kept = KeptPlan::after(premise(&course.world), &published, course.list.as_ref(), true);
    let mut gone = BTreeSet::new();
    let mut dies = |kept: &mut KeptPlan, at: usize| {
        gone.insert(everything[at].address);
        let published = course.look();
        let since = Since {
            slices: &published,
            endpoints: course.list.as_ref(),
            touched: BTreeSet::from([everything[at].address]),
            wall: Timestamp::UNIX_EPOCH,
        };
        let wanted = |_: &BTreeSet<IpAddr>| {
            let alive = everything.iter().filter(|it| !gone.contains(&it.address));
            alive.cloned().collect()
        };
        let changed = kept.plan(since, wanted, |wanted, _| wanted).unwrap();
        assert_eq!(changed.slices.writes().count(), 1);
        changed
            .slices
            .writes()
            .for_each(|write| course.server.send(write, &mut model::Sent::new()));
        changed.endpoints_may_differ
    };
    assert!(!dies(&mut kept, ROOM + 1), "it has no room for that one");
    assert!(!dies(&mut kept, ROOM + 2), "one more is left out");
    assert!(dies(&mut kept, ROOM), "it has room for all now");
    assert!(dies(&mut kept, 7), "it lists that one");
}

#[test]
fn the_endpoints_object_waits_for_one_plan_and_no_longer() {
    let mut course = Course::begin(3, EndpointsMode::Publish);
    for _ in 0..3 {
        course.plan().unwrap();
    }
    let kept = course.kept.as_mut().unwrap();
    assert!(kept.defer_endpoints());
    assert!(!kept.defer_endpoints(), "once");
    kept.leave_open(BTreeSet::new());
    assert!(kept.defer_endpoints(), "once after each plan for everything");
}

#[test]
fn an_instance_that_serves_again_is_missed_in_the_endpoints_object_although_a_slice_is_being_deleted()
 {
    let world = World::new();
    let mut everything = fleet(0..960, &ports(&[("http", 8080)]));
    let drains = everything[7].clone();
    everything[7].conditions = DRAINING;
    everything[7].in_endpoints = None;
    let mut course = Course::begin(100, EndpointsMode::Publish);
    course.server = world.published(&everything);
    let mut published = course.look();
    let mut going = published[3].as_ref().clone();
    going.metadata.name = Some("zzz-going".to_owned());
    going.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
    published.push(Arc::new(going));
    let list = course.list.as_ref();
    let mut kept = KeptPlan::after(premise(&course.world), &published, list, true);
    everything[7] = drains;
    let since = Since {
        slices: &published,
        endpoints: list,
        touched: BTreeSet::from([everything[7].address]),
        wall: Timestamp::UNIX_EPOCH,
    };
    let wanted = |_: &BTreeSet<IpAddr>| everything.clone();
    let changed = kept.plan(since, wanted, |wanted, _| wanted).unwrap();
    assert_eq!(changed.slices.writes().count(), 1);
    assert!(changed.endpoints_may_differ);
}

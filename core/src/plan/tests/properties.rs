//! Properties that hold for any wanted endpoints, any published objects and any failing writes.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    edits::{Edit, apply, edit},
    model::Sent,
    *,
};

/// The port sets that one address may have at the same time. No two sets in a line share a port.
pub const PORT_SETS: &[&[&[(&str, u16)]]] = &[
    &[&[("x", 1)]],
    &[&[("x", 1), ("y", 2)]],
    &[&[("x", 1)], &[("y", 2)]],
    &[&[("x", 1)], &[("y", 2), ("z", 3)]],
    &[&[("x", 1), ("z", 3)], &[("y", 2)]],
    &[&[("y", 2)]],
    &[&[("y", 2), ("z", 3)]],
    &[&[("x", 1), ("y", 2), ("z", 3)]],
    &[&[("x", 9)]],
    &[&[("x", 9)], &[("x", 1), ("y", 2)]],
];

const ADDRESSES: &[&str] = &[
    "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8",
    "10.0.0.9", "fd00::1", "fd00::2", "fd00::3",
];

/// The wanted endpoints: for each address none, or one for each port set in an item of [`PORT_SETS`].
fn target() -> impl Strategy<Value = Vec<Endpoint>> {
    let of_one = prop_oneof![
        1 => Just(None),
        3 => (0..PORT_SETS.len(), 0..6_u8).prop_map(Some),
    ];
    vec(of_one, ADDRESSES.len()).prop_map(|choices| {
        let mut endpoints = Vec::new();
        for (address, choice) in ADDRESSES.iter().zip(choices) {
            let Some((sets, state)) = choice else { continue };
            for set in PORT_SETS[sets] {
                let mut endpoint = endpoint(address, &ports(set));
                match state {
                    0 => not_ready(&mut endpoint),
                    1 => {
                        endpoint.conditions = DRAINING;
                        endpoint.in_endpoints = None;
                    }
                    2 => endpoint.pod = None,
                    _ => {}
                }
                endpoints.push(endpoint);
            }
        }
        endpoints
    })
}

/// How the writes of a phase proceed: their order, and the outcome of each.
#[derive(Debug, Clone)]
struct Luck {
    order: Vec<u16>,
    fate: Vec<u8>,
}

impl Luck {
    fn any() -> impl Strategy<Value = Self> {
        (vec(any::<u16>(), 16), vec(0..4_u8, 16)).prop_map(|(order, fate)| Self { order, fate })
    }
}

/// Carries out a plan with the given luck. What is wanted and published, or becomes published on the way, must be
/// published after each write. The limits must hold for each write.
fn carry_out(
    server: &mut Server,
    world: &World,
    plan: &Plan,
    wanted: &BTreeSet<Tuple>,
    luck: &Luck,
) {
    let mut published: BTreeSet<Tuple> = &server.tuples() & wanted;
    let mut sent = Sent::new();
    for phase in &plan.phases {
        let mut order: Vec<usize> = (0..phase.len()).collect();
        order.sort_by_key(|position| (luck.order[position % luck.order.len()], *position));
        let mut failed = false;
        for position in order {
            let write = &phase[position];
            let fate = luck.fate[position % luck.fate.len()];
            if fate == 0 {
                // The write was refused, or never arrived.
                failed = true;
                continue;
            }
            // The write arrived, but its answer may be lost.
            failed |= fate == 1;
            assert_within_limits(server, world, write);
            server.send(write, &mut sent);
            let now = &server.tuples() & wanted;
            assert!(
                published.is_subset(&now),
                "[{write}] of [{plan}] loses {:?}",
                &published - &now
            );
            published = now;
        }
        if failed {
            return;
        }
    }
}

fn assert_within_limits(server: &Server, world: &World, write: &Write) {
    match write {
        Write::CreateSlice(slice) => assert!(slice.endpoints.len() <= world.max),
        Write::UpdateSlice(slice, _) => {
            let before = server.slices[slice.metadata.name.as_ref().unwrap()].endpoints.len();
            assert!(slice.endpoints.len() <= world.max.max(before), "[{write}]");
        }
        _ => {}
    }
}

fn world(max: usize, headless: bool, primary: bool) -> World {
    let mut world = World { max, ..World::new() };
    world.service.headless = headless;
    if primary {
        world.service.families.reverse();
    }
    world
}

/// Checks that nothing is left to do, and that exactly what is wanted is published, once.
fn assert_settled(server: &Server, world: &World, endpoints: &[Endpoint]) {
    let rest = world.plan(server, endpoints);
    assert!(rest.is_empty(), "left to do: [{rest}]");
    let mut all = server.tuples_in_all();
    all.sort();
    let wanted: Vec<Tuple> = world.wanted(endpoints).into_iter().collect();
    assert_eq!(all, wanted);
    for slice in server.slices.values().filter(|it| it.metadata.deletion_timestamp.is_none()) {
        assert!(!slice.endpoints.is_empty());
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.clone().unwrap();
            assert!(conditions.ready.is_some() && conditions.serving.is_some());
        }
    }
    assert_eq!(listed(server), wanted_list(world, endpoints));
}

type List = BTreeMap<Tuple, bool>;

fn listed(server: &Server) -> List {
    let mut list = List::new();
    for subset in server.subsets() {
        let both = [(&subset.addresses, true), (&subset.not_ready_addresses, false)];
        for (address, ready) in both.into_iter().flat_map(|(addresses, ready)| {
            addresses.iter().flatten().map(move |address| (address, ready))
        }) {
            for port in subset.ports.iter().flatten() {
                let key = (port.name.clone().unwrap(), port.port, port.protocol.clone().unwrap());
                list.insert((address.ip.parse().unwrap(), Some(key)), ready);
            }
        }
    }
    list
}

fn wanted_list(world: &World, endpoints: &[Endpoint]) -> List {
    let mut list = List::new();
    for endpoint in endpoints {
        let Some(readiness) = endpoint.in_endpoints else { continue };
        if Family::of(endpoint.address) == world.service.families[0] {
            let tuples = world.wanted(std::slice::from_ref(endpoint));
            list.extend(tuples.into_iter().map(|it| (it, readiness == EndpointsReadiness::Ready)));
        }
    }
    list
}

/// A configuration without a file of failures. proptest prints a failing case, and that case becomes a named test.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn no_survivor_is_unpublished_and_the_plan_converges_whatever_write_fails(
        steps in vec((target(), vec(edit(), 0..4), vec(Luck::any(), 0..3), 1..5_usize), 1..5),
        headless: bool,
        primary: bool,
    ) {
        let mut server = Server::default();
        let mut serial = 0;
        for (endpoints, edits, attempts, max) in steps {
            let world = world(max, headless, primary);
            for edit in &edits {
                serial += 1;
                apply(edit, &mut server, serial);
            }
            let wanted = world.wanted(&endpoints);
            for luck in &attempts {
                let plan = world.plan(&server, &endpoints);
                prop_assert!(plan.phases.len() <= 2);
                carry_out(&mut server, &world, &plan, &wanted, luck);
            }
            let smooth = Luck { order: vec![7, 3, 5, 1, 6, 2, 4, 0], fate: vec![3] };
            let plan = world.plan(&server, &endpoints);
            carry_out(&mut server, &world, &plan, &wanted, &smooth);
            assert_settled(&server, &world, &endpoints);
            // The slices that were being deleted are finally removed.
            server.slices.retain(|_, slice| slice.metadata.deletion_timestamp.is_none());
        }
    }
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn the_dead_leave_with_the_first_phase_even_if_every_creation_fails(
        before in target(),
        after in target(),
        edits in vec(edit(), 0..3),
        max in 1..5_usize,
    ) {
        let world = world(max, false, false);
        let mut server = world.published(&before);
        for (serial, edit) in edits.iter().enumerate() {
            apply(edit, &mut server, serial);
        }
        let plan = world.plan(&server, &after);
        let mut sent = Sent::new();
        for write in plan.phases.iter().take(1).flatten() {
            if !matches!(write, Write::CreateSlice(_)) {
                server.send(write, &mut sent);
            }
        }
        let wanted: BTreeSet<IpAddr> =
            world.wanted(&after).into_iter().map(|(address, _)| address).collect();
        for (address, port) in server.tuples() {
            // An endpoint with several addresses is one entry, so a dead address stays as long as the living one.
            let merged = edits.iter().any(|edit| matches!(edit, Edit::MergeEndpoints(_)));
            prop_assert!(merged || wanted.contains(&address), "{address} {port:?} in [{plan}]");
        }
    }

    #[test]
    fn one_that_leaves_costs_one_write_to_a_slice_and_one_to_the_endpoints(
        before in target(),
        which: Index,
        max in 1..5_usize,
    ) {
        prop_assume!(!before.is_empty());
        let world = world(max, false, false);
        let mut server = world.published(&before);
        let mut after = before.clone();
        let gone = after.remove(which.index(before.len()));
        let plan = world.publish(&mut server, &after);
        let is_listed = gone.in_endpoints.is_some() && gone.address.is_ipv4();
        prop_assert_eq!(plan.writes().count(), 1 + usize::from(is_listed), "{}", plan);
        prop_assert_eq!(plan.phases.len(), 1);
    }

    #[test]
    fn one_that_joins_costs_one_write_to_a_slice_and_one_to_the_endpoints(
        before in target(),
        max in 1..5_usize,
    ) {
        let world = world(max, false, false);
        let mut server = world.published(&before);
        let newcomer = endpoint("10.0.0.77", &ports(&[("x", 1)]));
        let after = [before, vec![newcomer]].concat();
        let plan = world.publish(&mut server, &after);
        prop_assert_eq!(plan.writes().count(), 2, "{}", plan);
    }

    #[test]
    fn other_ports_for_all_cost_one_write_for_each_slice(
        addresses in 1..9_usize,
        max in 1..5_usize,
        from in 0..PORT_SETS.len(),
        to in 0..PORT_SETS.len(),
    ) {
        let (from, to) = (ports(PORT_SETS[from][0]), ports(PORT_SETS[to][0]));
        prop_assume!(from != to);
        let world = World { mode: EndpointsMode::Off, ..world(max, false, false) };
        let mut all = fleet(0..addresses, &from);
        let mut server = world.published(&all);
        let slices = server.slices.len();
        for endpoint in &mut all {
            endpoint.ports = to.clone();
        }
        let plan = world.publish(&mut server, &all);
        prop_assert_eq!(plan.writes().count(), slices);
        prop_assert_eq!(plan.phases.len(), 1);
        prop_assert_eq!(server.slices.len(), slices);
    }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn a_listed_address_stays_listed_while_it_is_wanted(
        start in 900..1_300_usize,
        steps in vec((vec(any::<Index>(), 0..60), 0..400_usize, any::<bool>()), 1..4),
    ) {
        const LIMIT: usize = crate::plan::target::MAX_ENDPOINTS_ADDRESSES;
        let world = World { max: 1000, ..World::new() };
        // New endpoints have lower addresses, so that they are first in any order.
        let mut next = 10_000;
        let mut join = |count: usize, number: u16| {
            next -= count;
            fleet(next..next + count, &ports(&[("x", number)]))
        };
        let mut all = join(start, 1);
        let mut server = world.published(&all);
        for (gone, joining, other_ports) in steps {
            let before = listed(&server);
            for index in gone {
                all.swap_remove(index.index(all.len()));
            }
            all.extend(join(joining, if other_ports { 2 } else { 1 }));
            world.publish(&mut server, &all);
            let now = listed(&server);
            prop_assert_eq!(now.len(), all.len().min(LIMIT));
            for tuple in world.wanted(&all) {
                prop_assert!(!before.contains_key(&tuple) || now.contains_key(&tuple));
            }
        }
    }
}

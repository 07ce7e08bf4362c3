//! An address that the API server refuses does not keep the other addresses of its slice out.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};
use proptest::prelude::*;

use super::*;
use crate::{
    inputs::{Inputs, snapshot::Snapshot, stall::ConflictingObjects},
    plan::{
        hold_back::without_unpublished,
        refusals::{ObjectKind, Refusals},
        trial::{TRIALS_MAX, Trial},
        write::{Tally, Write},
    },
};

fn ip(number: usize) -> IpAddr {
    let number = u8::try_from(number).expect("small");
    [192, 0, 2, number].into()
}

/// A slice with the addresses of these numbers. The first `pods` addresses belong to Pods.
fn slice(numbers: &[usize], pods: usize) -> EndpointSlice {
    let endpoints: Vec<Value> = numbers
        .iter()
        .enumerate()
        .map(|(place, number)| {
            let pod = (place < pods).then(|| json!({ "kind": "Pod", "name": "p" }));
            json!({ "addresses": [ip(*number)], "targetRef": pod })
        })
        .collect();
    parsed(json!({
        "metadata": { "name": "greeter-a" }, "addressType": "IPv4", "endpoints": endpoints,
    }))
}

fn parsed<K: serde::de::DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).expect("an object")
}

fn inputs(published: &[usize]) -> Inputs {
    let slices = vec![Arc::new(slice(published, 0))];
    let snapshot = Snapshot {
        service: None,
        slices,
        endpoints: None,
        conflicts: ConflictingObjects::default(),
        published: published.iter().map(|number| ip(*number)).collect(),
    };
    Inputs::new(snapshot, None, None)
}

/// Returns the addresses in a variant that is tried.
fn tried(write: &Write) -> BTreeSet<IpAddr> {
    let texts: Vec<String> = match write {
        Write::CreateSlice(slice) | Write::UpdateSlice(slice, _) => {
            slice.endpoints.iter().flat_map(|it| it.addresses.clone()).collect()
        }
        Write::CreateEndpoints(object) | Write::UpdateEndpoints(object, _) => {
            let subsets = object.subsets.iter().flatten();
            let addresses = subsets.flat_map(|it| it.addresses.iter().flatten());
            addresses.map(|address| address.ip.clone()).collect()
        }
        Write::DeleteSlice { .. } | Write::DeleteEndpoints { .. } => Vec::new(),
    };
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

/// Searches against a server that refuses these addresses. Returns the addresses that were found, and the
/// number of trials.
fn search(trial: &Trial, bad: &BTreeSet<IpAddr>) -> (BTreeSet<IpAddr>, usize) {
    let mut search = trial.search();
    let mut trials = 0;
    while let Some(some) = search.next_trial() {
        trials += 1;
        let accepted = tried(&trial.with(&some)).is_disjoint(bad);
        search.answer(some, accepted);
    }
    (search.refused().into_iter().collect(), trials)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_refused_address_is_found_and_no_other_is_blamed_while_there_are_few(
        count in 1..100_usize,
        pods in 0..100_usize,
        bad in proptest::collection::btree_set(0..100_usize, 1..4),
    ) {
        let numbers: Vec<usize> = (0..count).collect();
        let bad: BTreeSet<IpAddr> =
            bad.into_iter().filter(|it| *it < count).map(ip).collect();
        prop_assume!(!bad.is_empty());
        let write = Write::CreateSlice(slice(&numbers, pods));
        let trial = Trial::of(&write, &inputs(&[])).expect("it adds");
        let (found, trials) = search(&trial, &bad);
        prop_assert!(trials <= TRIALS_MAX, "{trials}");
        prop_assert!(found.is_superset(&bad), "{found:?} of {bad:?}");
        if trials < TRIALS_MAX {
            prop_assert_eq!(found, bad);
        }
    }
}

/// The case of a server that refuses the addresses of Pods but not those of machines.
#[test]
fn a_refused_write_is_first_divided_into_pods_and_outside_instances() {
    let numbers: Vec<usize> = (0..30).collect();
    let trial = Trial::of(&Write::CreateSlice(slice(&numbers, 15)), &inputs(&[])).expect("it adds");
    let mut search = trial.search();
    let first = search.next_trial().expect("one");
    assert_eq!(first, (15..30).map(ip).collect::<Vec<_>>(), "the machines");
    search.answer(first, true);
    assert_eq!(search.next_trial().expect("one"), (0..15).map(ip).collect::<Vec<_>>());
}

#[test]
fn of_an_update_only_what_it_adds_is_tried() {
    let update = Write::UpdateSlice(slice(&[1, 2, 3, 4], 0), Tally::default());
    let trial = Trial::of(&update, &inputs(&[1, 2])).expect("an update");
    assert_eq!(trial.existing(), Some("greeter-a"));
    assert_eq!(tried(&trial.with(&[])), [ip(1), ip(2)].into());
    assert_eq!(tried(&trial.with(&[ip(4)])), [ip(1), ip(2), ip(4)].into());
    assert_eq!(search(&trial, &[ip(3)].into()).0, [ip(3)].into());
}

#[test]
fn an_endpoints_object_is_tried_in_the_same_way() {
    let object: Endpoints = parsed(json!({
        "metadata": { "name": "greeter" },
        "subsets": [
            { "addresses": [{ "ip": ip(1), "targetRef": { "kind": "Pod" } }, { "ip": ip(2) }] },
            { "addresses": [{ "ip": ip(3) }] },
        ],
    }));
    let trial = Trial::of(&Write::CreateEndpoints(object), &inputs(&[])).expect("it adds");
    assert_eq!(trial.place(), ObjectKind::Endpoints);
    assert_eq!(search(&trial, &[ip(1)].into()).0, [ip(1)].into());
    assert_eq!(tried(&trial.with(&[ip(3)])), [ip(3)].into());
}

#[test]
fn what_is_refused_is_tried_again_less_and_less_often() {
    let mut refusals = Refusals::default();
    let words: Arc<str> = "no".into();
    let mut now = at(0);
    let mut pauses = Vec::new();
    for _ in 0..7 {
        refusals.refuse(ObjectKind::Slices, ip(1), &words, now);
        assert!(refusals.held_back(now).slices.contains(&ip(1)));
        let next = refusals.next().expect("a time");
        assert!(refusals.held_back(next).slices.is_empty(), "it is tried");
        pauses.push(next.since(now).as_secs());
        now = next;
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn what_was_accepted_or_is_not_wanted_any_more_is_forgotten() {
    let words: Arc<str> = "no".into();
    let verdicts = |addresses: &[usize]| {
        let mut index = index();
        for (version, number) in addresses.iter().enumerate() {
            let mut beat = beat(&format!("vm-{number}"), 1, version as u64 + 1);
            beat.content.addresses = vec![ip(*number).to_string().as_str().into()];
            index.observe("shop", beat, at(0));
        }
        World::new().decide(&index, at(0))
    };
    let mut refusals = Refusals::default();
    for number in [1, 2] {
        refusals.refuse(ObjectKind::Slices, ip(number), &words, at(0));
    }
    let mut inputs = inputs(&[]);
    inputs.held_back = refusals.held_back(at(1000));
    let still = refusals.update(&verdicts(&[1, 3]), &inputs, at(1000));
    assert_eq!(still.addresses.keys().collect::<Vec<_>>(), [&ip(1)], "vm-2 has left");
    // Its next try was due: it was not held back, and the server did not refuse it again.
    inputs.held_back = refusals.held_back(at(2000));
    assert!(refusals.update(&verdicts(&[1, 3]), &inputs, at(2000)).is_empty());
    assert_eq!(refusals.next(), None);
}

#[test]
fn endpoints_list_only_what_a_slice_has_and_lose_leaving_instances_at_once() {
    let object = |numbers: &[usize]| -> Endpoints {
        let addresses: Vec<_> = numbers.iter().map(|number| json!({ "ip": ip(*number) })).collect();
        parsed(
            json!({ "metadata": { "name": "greeter" }, "subsets": [{ "addresses": addresses }] }),
        )
    };
    let before = object(&[1, 2]);
    let in_slices: AddressSet = [ip(1), ip(3)].into_iter().collect();
    let update = |numbers: &[usize], added: usize, removed: usize| {
        let tally = Tally { added, removed, changed: 0 };
        let write = Write::UpdateEndpoints(object(numbers), tally);
        let left = without_unpublished(write, Some(&before), &in_slices)?;
        let Write::UpdateEndpoints(_, tally) = &left else { panic!("{left:?}") };
        Some((tried(&left), *tally))
    };
    assert_eq!(update(&[1, 2, 4], 1, 0), None, "4 is in no slice, and there is nothing else to do");
    let removal = Tally { removed: 1, ..Tally::default() };
    assert_eq!(update(&[1, 4], 1, 1), Some(([ip(1)].into(), removal)));
    let addition = Tally { added: 1, ..Tally::default() };
    assert_eq!(update(&[1, 2, 3, 4], 2, 0), Some(([ip(1), ip(2), ip(3)].into(), addition)));
    let create = Write::CreateEndpoints(object(&[3, 4]));
    let created = without_unpublished(create, None, &in_slices).expect("it is made all the same");
    assert_eq!(tried(&created), [ip(3)].into());
    let delete = Write::DeleteSlice {
        name: String::new(),
        uid: String::new(),
        resource_version: String::new(),
    };
    assert_eq!(without_unpublished(delete.clone(), None, &in_slices), Some(delete));
}

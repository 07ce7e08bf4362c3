//! What a dry run reports, and what it counts as published.

use std::sync::Arc;

use beatkeeper_api::ServiceRegistrationStatus;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::*;
use crate::{
    inputs::{
        Inputs,
        snapshot::Snapshot,
        stall::{ConflictingObjects, Stall},
    },
    objects::published_addresses::PublishedAddresses,
    plan::{
        build::PlanSettings,
        write::{Plan, Tally, Write},
    },
    report::{
        applied::Applied,
        dry_run::{self, published_after, told_endpoints},
        status::{Clocks, report},
        summary::DecisionSummary,
    },
};

fn slice(name: &str, addresses: &[&str]) -> EndpointSlice {
    let endpoints: Vec<Value> = addresses.iter().map(|ip| json!({ "addresses": [ip] })).collect();
    serde_json::from_value(json!({
        "metadata": { "name": name, "generateName": "greeter-" },
        "addressType": "IPv4", "endpoints": endpoints,
    }))
    .expect("a slice")
}

fn inputs(slices: &[EndpointSlice]) -> Inputs {
    let snapshot = Snapshot {
        service: None,
        slices: slices.iter().cloned().map(Arc::new).collect(),
        endpoints: None,
        conflicts: ConflictingObjects::default(),
        published: AddressSet::new(),
    };
    Inputs::new(snapshot, None, None)
}

fn update(name: &str, addresses: &[&str]) -> Write {
    Write::UpdateSlice(slice(name, addresses), Tally::default())
}

fn delete(name: &str) -> Write {
    Write::DeleteSlice { name: name.to_owned(), uid: String::new(), resource_version: "1".into() }
}

#[test]
fn what_would_be_published_is_what_the_slices_would_hold_after_all_phases() {
    let inputs = inputs(&[
        slice("a", &["192.0.2.1"]),
        slice("b", &["192.0.2.2"]),
        slice("c", &["192.0.2.3"]),
        slice("d", &["192.0.2.4", "192.0.2.5"]),
    ]);
    let first = vec![
        update("a", &["192.0.2.1", "192.0.2.6"]),
        update("d", &["192.0.2.4"]),
        Write::CreateSlice(slice("", &["192.0.2.7"])),
    ];
    let plan = Plan { phases: vec![first, vec![delete("b"), update("d", &[]), delete("a")]] };
    let mut published: Vec<String> =
        published_after(&inputs, &plan).iter().map(ToString::to_string).collect();
    published.sort();
    assert_eq!(published, ["192.0.2.3", "192.0.2.7"]);
}

fn stall() -> Stall {
    Stall {
        reason: crate::vocabulary::reason::ConditionReason::ServiceTaken,
        message: "taken".to_owned(),
    }
}

/// What an operator with the usual settings tells of a plan.
fn describe(inputs: &Inputs, plan: &Plan) -> String {
    let settings = PlanSettings { publish_endpoints: true, max_endpoints_per_slice: 100 };
    dry_run::describe(inputs, plan, settings)
}

#[test]
fn an_operator_that_writes_no_endpoints_says_so_and_a_reader_of_its_status_finds_it() {
    let settings = PlanSettings { publish_endpoints: false, max_endpoints_per_slice: 100 };
    let plan = Plan { phases: vec![(0..9).map(|n| delete(&format!("s-{n}"))).collect()] };
    for plan in [Plan::default(), plan] {
        let text = dry_run::describe(&inputs(&[]), &plan, settings);
        assert!(text.contains("; no Endpoints are written (--publish-endpoints=false)"), "{text}");
        for stall in [None, Some(stall())] {
            let message = |text: &str| {
                let status = ready_with(stall.as_ref(), text);
                let ready = status.conditions.into_iter().find(|it| it.type_ == "Ready");
                ready.expect("a condition").message
            };
            assert_eq!(told_endpoints(&message(&text)), Some(false));
            assert_eq!(told_endpoints(&message(&describe(&inputs(&[]), &plan))), Some(true));
        }
    }
    assert_eq!(told_endpoints("published as decided: 1 of 1 instances ready"), None);
}

#[test]
fn a_few_writes_are_named_and_the_others_counted() {
    let mut inputs = inputs(&[]);
    assert_eq!(describe(&inputs, &Plan::default()), "there is nothing to write");
    inputs.announced.push("create service greeter".to_owned());
    let plan = Plan { phases: vec![(0..9).map(|n| delete(&format!("s-{n}"))).collect()] };
    assert_eq!(
        describe(&inputs, &plan),
        "would create service greeter, delete slice s-0, delete slice s-1, delete slice s-2, delete \
         slice s-3 and 5 writes more; nothing is published or removed"
    );
    let long = Plan { phases: vec![(0..9).map(|_| delete(&"x".repeat(253))).collect()] };
    assert!(describe(&inputs, &long).chars().count() < 1100);
}

fn ready(stall: Option<&Stall>) -> ServiceRegistrationStatus {
    ready_with(stall, "would do this")
}

fn ready_with(stall: Option<&Stall>, dry_run: &str) -> ServiceRegistrationStatus {
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(0));
    let verdicts = World::new().decide(&index, at(0));
    let applied = Applied {
        published: PublishedAddresses::as_ready([std::net::IpAddr::from([192, 0, 2, 1])].into()),
        dry_run: Some(dry_run.to_owned()),
        ..Applied::default()
    };
    let wall = "2026-11-22T10:00:00Z".parse().expect("a time");
    let prior = ServiceRegistrationStatus::default();
    let account = DecisionSummary::of(verdicts, applied.published.all());
    report(&prior, Some(1), &account, stall, &applied, Clocks { now: at(0), wall })
}

fn condition(status: &ServiceRegistrationStatus, type_: &str) -> String {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_);
    let found = found.expect(type_);
    format!("{} {}: {}", found.status, found.reason, found.message)
}

#[test]
fn its_status_counts_as_decided_and_says_that_nothing_was_done() {
    let status = ready(None);
    assert_eq!((status.ready, status.total), (1, 1));
    assert_eq!(
        condition(&status, "Ready"),
        "True DryRun: dry run: 1 of 1 instances would be ready; would do this"
    );
    assert_eq!(
        condition(&status, "Available"),
        "Unknown DryRun: dry run: 1 instances would be ready; nothing is published"
    );
    // Neither Reconciling nor Stalled: a tool that waits does not wait for the end of the dry run.
    assert!(status.conditions.iter().all(|it| ["Ready", "Available"].contains(&&*it.type_)));
}

#[test]
fn what_would_stall_it_is_told_first() {
    let status = ready(Some(&stall()));
    assert_eq!(condition(&status, "Ready"), "False ServiceTaken: taken; dry run: would do this");
    assert_eq!(condition(&status, "Stalled"), "True ServiceTaken: taken");
}

#[test]
fn the_annotation_is_true_or_false_and_anything_else_a_problem() {
    let read = |value: Option<&str>| {
        let mut object = object(json!({ "ports": [{ "name": "http", "port": 80 }] }));
        object.metadata.annotations =
            value.map(|value| [("beatkeeper.dev/dry-run".to_owned(), value.to_owned())].into());
        let registration = Registration::validate(&object);
        (registration.dry_run, registration.problems.len())
    };
    assert_eq!(read(None), (false, 0));
    assert_eq!(read(Some("false")), (false, 0));
    assert_eq!(read(Some("true")), (true, 0));
    for slip in ["", "True", "yes", "1"] {
        assert_eq!(read(Some(slip)), (false, 1), "{slip:?}");
    }
}

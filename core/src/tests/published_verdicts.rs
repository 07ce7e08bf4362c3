//! The status says what is in the slices.

use std::sync::Arc;

use beatkeeper_api::ServiceRegistrationStatus;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::*;
use crate::{
    inputs::stall::Stall,
    objects::published_addresses::PublishedAddresses,
    report::{
        applied::Applied,
        events,
        flapping::Withheld,
        published_verdicts,
        reported_states::ReportedStates,
        status::{Clocks, differs, report},
        summary::DecisionSummary,
    },
};

const WORDS: &str = "cannot update slice greeter-x: policy said no (403)";

/// Slices with these addresses; the flag says whether the address is ready.
fn slices(endpoints: &[(&str, bool)]) -> PublishedAddresses {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(ip, ready)| json!({ "addresses": [ip], "conditions": { "ready": ready } }))
        .collect();
    let slice = json!({ "metadata": {}, "addressType": "IPv4", "endpoints": endpoints });
    let slice: EndpointSlice = serde_json::from_value(slice).expect("a slice");
    let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    let all = addresses.map(|text| text.parse().expect("an address")).collect();
    PublishedAddresses::of(&[Arc::new(slice)], all)
}

/// Returns what the status says about vm-1 at 192.0.2.1, which beats. `change` may modify its heartbeat.
fn told(stall: Option<&Stall>, applied: &Applied, change: impl Fn(&mut Heartbeat)) -> String {
    let mut index = index();
    let mut beat = beat("vm-1", 1, 1);
    change(&mut beat);
    index.observe("shop", beat, at(0));
    let mut verdicts = World::new().decide(&index, at(0));
    published_verdicts::correct(&mut verdicts, stall, applied, false);
    line(&verdicts[0])
}

fn as_is(_: &mut Heartbeat) {}

fn failing(beat: &mut Heartbeat) {
    beat.content.health = Ok(beatkeeper_api::heartbeat::Health::Failing);
    beat.content.note = Some("disk full".into());
}

fn cordoned(beat: &mut Heartbeat) {
    beat.content.cordoned = Some(String::new());
}

fn failed(published: PublishedAddresses) -> Applied {
    Applied { published, failure: Some(failure(WORDS)), ..Applied::default() }
}

fn refused(published: PublishedAddresses) -> Applied {
    let mut applied = Applied { published, ..Applied::default() };
    let address = "192.0.2.1".parse().expect("an address");
    applied.refused.addresses.insert(address, "policy said no".into());
    applied
}

#[test]
fn what_is_published_as_decided_is_reported_as_decided() {
    let there = || slices(&[("192.0.2.1", true)]);
    let applied = Applied { published: there(), ..Applied::default() };
    assert_eq!(told(None, &applied, as_is), "Ready Beating: ");
    assert_eq!(told(None, &failed(there()), as_is), "Ready Beating: ", "another's write failed");
}

#[test]
fn an_instance_missing_in_the_slices_is_not_reported_as_ready() {
    let nothing = || slices(&[]);
    let stall = Stall {
        reason: crate::vocabulary::reason::ConditionReason::ServiceTaken,
        message: "taken".to_owned(),
    };
    let applied = Applied::default();
    assert_eq!(
        told(Some(&stall), &applied, as_is),
        "Waiting NotPublished: decided to be Ready, but not published: the registration is stalled \
         (ServiceTaken), see its conditions"
    );
    assert_eq!(
        told(None, &failed(nothing()), as_is),
        format!("Waiting PublishFailed: decided to be Ready, but not published: {WORDS}")
    );
    assert_eq!(
        told(None, &refused(nothing()), failing),
        "Waiting PublishFailed: decided to be NotReady, but not published: policy said no"
    );
}

#[test]
fn an_instance_not_ready_in_the_slices_is_not_reported_as_ready() {
    assert_eq!(
        told(None, &failed(slices(&[("192.0.2.1", false)])), as_is),
        format!("NotReady PublishFailed: decided to be Ready, but published as not ready: {WORDS}")
    );
}

#[test]
fn instances_that_stay_in_slices_after_a_failed_write_are_reported() {
    let there = || failed(slices(&[("192.0.2.1", true)]));
    assert_eq!(
        told(None, &there(), failing),
        format!("NotReady PublishFailed: disk full; still published as ready: {WORDS}")
    );
    assert_eq!(
        told(None, &there(), cordoned),
        format!("Cordoned PublishFailed: taken out by an operator; still published: {WORDS}")
    );
    let gone = failed(slices(&[]));
    assert_eq!(told(None, &gone, cordoned), "Cordoned Cordoned: taken out by an operator");
}

#[test]
fn an_address_that_another_instance_keeps_published_is_not_reported_for_a_removed_one() {
    let mut index = index();
    let mut out = beat("vm-1", 1, 1);
    cordoned(&mut out);
    index.observe("shop", out, at(0));
    index.observe("shop", beat("vm-2", 1, 2), at(0));
    let mut verdicts = World::new().decide(&index, at(0));
    published_verdicts::correct(
        &mut verdicts,
        None,
        &failed(slices(&[("192.0.2.1", true)])),
        false,
    );
    assert_eq!(line(&verdicts[0]), "Cordoned Cordoned: taken out by an operator");
}

#[test]
fn the_refused_one_of_two_addresses_of_an_instance_is_reported() {
    let mut index = index();
    let mut beat = beat("vm-1", 1, 1);
    beat.content.addresses = vec!["192.0.2.1".into(), "192.0.2.2".into()];
    index.observe("shop", beat, at(0));
    let mut verdicts = World::new().decide(&index, at(0));
    published_verdicts::correct(
        &mut verdicts,
        None,
        &refused(slices(&[("192.0.2.2", true)])),
        false,
    );
    assert_eq!(line(&verdicts[0]), "Ready Beating: 192.0.2.1 is not published: policy said no");
}

fn status_of(applied: &Applied, prior: &ServiceRegistrationStatus) -> ServiceRegistrationStatus {
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(0));
    let mut verdicts = World::new().decide(&index, at(0));
    published_verdicts::correct(&mut verdicts, None, applied, false);
    let account = DecisionSummary::of(verdicts, applied.published.all());
    let wall = "2026-11-22T10:00:00Z".parse().expect("a time");
    report(prior, Some(1), &account, None, applied, Clocks { now: at(0), wall })
}

#[test]
fn a_refusal_is_reported_in_conditions_and_counts() {
    let status = status_of(&refused(slices(&[])), &ServiceRegistrationStatus::default());
    let told = |type_: &str| {
        let found = status.conditions.iter().find(|it| it.type_ == type_).expect("a condition");
        format!("{} {}: {}", found.status, found.reason, found.message)
    };
    let words = "not published, and tried again: 192.0.2.1: policy said no";
    assert_eq!(told("Ready"), format!("False PublishFailed: {words}"));
    assert_eq!(told("Reconciling"), format!("True PublishFailed: {words}"));
    assert!(told("Available").starts_with("False NoInstanceReady: "));
    assert_eq!((status.ready, status.total), (0, 1));
}

/// The answer to each try has another id and another time.
#[test]
fn a_lasting_failure_is_reported_once() {
    let with = |words: &str| {
        let mut applied = failed(slices(&[]));
        applied.failure = Some(failure(words));
        applied
    };
    let first =
        status_of(&with("denied, request 17a at 10:00"), &ServiceRegistrationStatus::default());
    let again = status_of(&with("denied, request 42b at 10:01"), &first);
    assert!(!differs(&first, &again));
    let another = status_of(&with("denied, the service is down"), &first);
    assert!(differs(&first, &another));
}

#[test]
fn a_refused_instance_is_reported_in_one_event() {
    let mut index = index();
    index.observe("shop", beat("vm-1", 1, 1), at(0));
    let mut verdicts = World::new().decide(&index, at(0));
    let applied = refused(slices(&[]));
    published_verdicts::correct(&mut verdicts, None, &applied, false);
    let account = DecisionSummary::of(verdicts, applied.published.all());
    let first = events::of(&ReportedStates::of(&[]), &account.lines, &Withheld::default());
    let told: Vec<_> = first.iter().map(|it| (it.warning, it.reason)).collect();
    assert_eq!(told, [(true, "InstanceNotPublished")]);
    assert_eq!(
        events::of(&ReportedStates::of(&account.lines), &account.lines, &Withheld::default()),
        []
    );
}

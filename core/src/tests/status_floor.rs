//! Which changes of a status may be delayed.

use std::time::Duration;

use beatkeeper_api::{InstanceStatus, ServiceRegistrationStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::at;
use crate::report::status::{FLOOR, due, is_urgent};

fn time(second: i64) -> Time {
    Time(Timestamp::from_second(second).expect("a time"))
}

fn instance(name: &str, state: &str, reason: &str) -> InstanceStatus {
    InstanceStatus {
        name: name.to_owned(),
        state: state.to_owned(),
        addresses: vec!["192.0.2.1".to_owned()],
        since: Some(time(10)),
        last_beat: Some(time(20)),
        reason: reason.to_owned(),
        message: "disk 91 %".to_owned(),
    }
}

/// A status in which one instance beats and one has expired.
fn status() -> ServiceRegistrationStatus {
    ServiceRegistrationStatus {
        observed_generation: Some(1),
        conditions: vec![Condition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            reason: "Published".to_owned(),
            message: "published as decided".to_owned(),
            observed_generation: Some(1),
            last_transition_time: time(5),
        }],
        ready: 1,
        expired: 1,
        held: 0,
        total: 2,
        cordoned: Vec::new(),
        former_ttl: None,
        adopted: Vec::new(),
        last_change_time: Some(time(10)),
        instances: vec![
            instance("vm-2", "Expired", "TTLPassed"),
            instance("vm-1", "Ready", "Beating"),
        ],
    }
}

type Change = fn(&mut ServiceRegistrationStatus);

#[test]
fn notes_messages_and_late_beats_may_wait() {
    let changes: [(&str, Change); 5] = [
        ("nothing", |_| {}),
        ("a note", |status| status.instances[1].message = "disk 92 %".to_owned()),
        ("what a dead one last said", |status| status.instances[0].message = "x".to_owned()),
        ("a condition's message", |status| status.conditions[0].message = "x".to_owned()),
        ("a late beat", |status| {
            status.last_change_time = Some(time(30));
            status.instances[1].reason = "BeatOverdue".to_owned();
            status.instances[1].since = Some(time(30));
            // The status lists instances with problems first.
            status.instances.swap(0, 1);
        }),
    ];
    for (what, change) in changes {
        let mut next = status();
        change(&mut next);
        assert!(!is_urgent(&status(), &next), "{what}");
    }
}

#[test]
fn states_counts_conditions_and_addresses_may_not() {
    let changes: [(&str, Change); 9] = [
        ("a state", |status| status.instances[1].state = "Draining".to_owned()),
        ("a reason", |status| status.instances[0].reason = "Other".to_owned()),
        ("a count", |status| status.held = 1),
        ("an address", |status| status.instances[1].addresses = vec!["192.0.2.2".to_owned()]),
        ("an instance", |status| drop(status.instances.pop())),
        ("a generation", |status| status.observed_generation = Some(2)),
        ("a condition's status", |status| status.conditions[0].status = "False".to_owned()),
        ("a condition's reason", |status| status.conditions[0].reason = "WriteFailed".to_owned()),
        ("a condition less", |status| status.conditions.clear()),
    ];
    for (what, change) in changes {
        let mut next = status();
        change(&mut next);
        assert!(is_urgent(&status(), &next), "{what}");
    }
}

#[test]
fn the_list_of_ready_instances_may_wait_and_that_of_the_dead_may_not() {
    let many = |late: usize, dead: usize| {
        let mut status = status();
        status.instances =
            (0..100).map(|n| instance(&format!("vm-{n}"), "Ready", "Beating")).collect();
        status.instances[0] = instance(&format!("late-{late}"), "Ready", "BeatOverdue");
        status.instances[1] = instance(&format!("dead-{dead}"), "Expired", "TTLPassed");
        status
    };
    assert!(!is_urgent(&many(1, 1), &many(2, 1)));
    assert!(is_urgent(&many(1, 1), &many(1, 2)));
}

#[test]
fn what_may_wait_waits_for_the_floor_after_the_last_write_and_what_is_urgent_does_not() {
    let (now, written) = (at(15_000), at(10_000));
    let mut note = status();
    note.instances[1].message = "disk 92 %".to_owned();
    let mut death = status();
    death.ready = 0;
    let before = status();
    let due = |prior, next, written| due(prior, next, written, now);
    assert_eq!(due(Some(&before), &note, Some(written)), written + FLOOR);
    assert_eq!(due(Some(&before), &death, Some(written)), now);
    assert_eq!(due(Some(&before), &note, Some(at(1000))), now, "the floor has passed");
    assert_eq!(due(Some(&before), &note, None), now, "nothing was written by this process");
    assert_eq!(due(None, &note, Some(written)), now, "there is no status yet");
    assert_eq!(FLOOR, Duration::from_secs(10));
}

//! What `top` shows.

use kubectl_beatkeeper::{
    model::load::{Load, SortBy, sort},
    render::load::table,
};
use serde_json::{Value, json};

use crate::objects::{lease, listed, now, picture, registration, slice, store};

/// The load of a registration with instances that were silent for these times, in the states of a status.
fn load(name: &str, instances: &[(&str, &str, i64)]) -> Load {
    let list = instances.iter().map(|(name, state, _)| listed(name, state, "Beating", ""));
    let mut object = registration("greeter", list.collect());
    object["metadata"]["name"] = name.into();
    object["spec"]["serviceName"] = "greeter".into();
    let leases: Vec<Value> = instances
        .iter()
        .map(|(instance, _, silent)| {
            let mut lease = lease(instance, "192.0.2.1", *silent);
            lease["metadata"]["name"] = format!("{name}.{instance}").into();
            lease["metadata"]["labels"] = json!({ "beatkeeper.dev/registration": name });
            lease
        })
        .collect();
    let slices = [slice("greeter-x7k2p", "beatkeeper.dev", &[])];
    Load::of(&picture(&store(object, &leases, &slices, &[])).registrations[0], now())
}

/// The ttl is 30 s, and the interval 10 s: an instance is overdue after 20 s.
fn greeter() -> Load {
    load(
        "greeter",
        &[
            ("vm-1", "Ready", 4),
            ("vm-2", "Ready", 12),
            ("vm-3", "Ready", 20),
            ("vm-4", "Held", 40),
            ("vm-5", "Expired", 50),
        ],
    )
}

fn drawn(loads: &[Load], sum: Option<&Load>, namespaces: bool) -> String {
    table(loads, sum, namespaces).iter().map(|line| line.plain() + "\n").collect()
}

#[test]
fn an_instance_that_is_late_is_overdue_while_it_is_published_and_counts_as_no_beats() {
    assert_eq!(
        drawn(&[greeter()], None, false),
        "\
NAME     INSTANCES  READY  OVERDUE  BEATS(/s)  NEXT DEADLINE
greeter  5          3      2        0.20       10s vm-3
"
    );
}

#[test]
fn registrations_are_sorted_by_what_is_asked_for_and_summed_up() {
    let mut loads = [
        load("b", &[("vm-1", "Ready", 1)]),
        load("c", &[]),
        load("a", &[("vm-1", "Ready", 1), ("vm-2", "Ready", 9)]),
        greeter(),
    ];
    let mut order = |by| {
        sort(&mut loads, by);
        loads.iter().map(|load| load.key.name.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(order(SortBy::Name), "a b c greeter");
    assert_eq!(order(SortBy::Beats), "a greeter b c");
    assert_eq!(order(SortBy::Instances), "greeter a b c");
    assert_eq!(order(SortBy::Overdue), "greeter a b c");
    assert_eq!(order(SortBy::Deadline), "greeter a b c");
    sort(&mut loads, SortBy::Name);
    let sum = Load::sum(&loads);
    let text = drawn(&loads, Some(&sum), true);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "NAMESPACE  NAME     INSTANCES  READY  OVERDUE  BEATS(/s)  NEXT DEADLINE");
    assert_eq!(lines[3], "shop       c        0          0      0        0.00       -");
    assert_eq!(
        lines[5],
        "SUM                 8          6      2        0.50       10s greeter/vm-3"
    );
}

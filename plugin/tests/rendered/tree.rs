//! The tree of `get`.

use kubectl_beatkeeper::{
    model::store::Store,
    render::tree::{Look, Rows},
};
use serde_json::json;

use crate::objects::{lease, listed, now, picture, registration, slice, store};

fn drawn(store: &Store, look: Look) -> String {
    let picture = picture(store);
    let lines = Rows::of(&picture, look).lines(&picture, now());
    lines.iter().map(|line| line.plain() + "\n").collect()
}

/// One instance that is well, one that is dead, and one that says that it cannot serve.
fn shop() -> Store {
    let note = "disk 91 %";
    let instances = json!([
        listed("vm-2", "Expired", "TTLPassed", "no beat for its ttl of 30s"),
        listed("vm-3", "NotReady", "HealthFailing", note),
        listed("vm-1", "Ready", "Beating", ""),
    ]);
    let leases = [
        lease("vm-1", "192.0.2.11", 8),
        lease("vm-2", "192.0.2.12", 250),
        lease("vm-3", "192.0.2.13", 2),
    ];
    let slices =
        [slice("greeter-x7k2p", "beatkeeper.dev", &[("192.0.2.11", true), ("192.0.2.13", false)])];
    store(registration("greeter", instances), &leases, &slices, &["192.0.2.11"])
}

#[test]
fn a_registration_with_dead_and_failing_instances() {
    assert_eq!(
        drawn(&shop(), Look::default()),
        "\
✗ shop/greeter: 1 of 3 instances ready, 1 not ready, 1 expired
  Service greeter, ttl 30s, interval 10s, status Published
  ✗ vm-2 has expired (TTLPassed): no beat for its ttl of 30s
    → Start it again; its next beat publishes it.
  ! vm-3 gets no new connections (HealthFailing): disk 91 %
    → Look at its note, and at the instance.
       STATE     INSTANCE  LAST BEAT OF 30s     ADDRESS     ZONE    WHY
  ├─ ✗ Expired   vm-2      [██████████] 4m10s   192.0.2.12          TTLPassed
  ├─ ◐ NotReady  vm-3      [█░░░░░░░░░] 2.0s    192.0.2.13  zone-a  HealthFailing
  ├─ ● Ready     vm-1      [███░░░░░░░] 8.0s    192.0.2.11  zone-a
  ├─ Service greeter, ClusterIP 10.96.0.12, http 80 → 8080
  ├─ EndpointSlice greeter-x7k2p, IPv4 http 8080: 1 ready, 1 not ready
  └─ Endpoints greeter: 1 ready
"
    );
}

#[test]
fn only_what_needs_a_person_is_shown_if_asked_for() {
    let text = drawn(&shop(), Look { troubled: true, ..Look::default() });
    assert!(text.contains("Expired   vm-2") && !text.contains("Ready     vm-1"), "{text}");
}

#[test]
fn a_registration_that_is_well_is_short() {
    let instances = json!([listed("vm-1", "Ready", "Beating", "")]);
    let slices = [slice("greeter-x7k2p", "beatkeeper.dev", &[("192.0.2.11", true)])];
    let leases = [lease("vm-1", "192.0.2.11", 1)];
    let store = store(registration("greeter", instances), &leases, &slices, &["192.0.2.11"]);
    assert_eq!(
        drawn(&store, Look::default()),
        "\
✓ shop/greeter: 1 of 1 instance ready
  Service greeter, ttl 30s, interval 10s, status Published
       STATE     INSTANCE  LAST BEAT OF 30s     ADDRESS     ZONE    WHY
  ├─ ● Ready     vm-1      [█░░░░░░░░░] 1.0s    192.0.2.11  zone-a
  ├─ Service greeter, ClusterIP 10.96.0.12, http 80 → 8080
  ├─ EndpointSlice greeter-x7k2p, IPv4 http 8080: 1 ready
  └─ Endpoints greeter: 1 ready
"
    );
}

#[test]
fn a_dry_run_in_which_all_is_well_is_not_taken_for_published() {
    let mut dry = registration("greeter", json!([listed("vm-1", "Ready", "Beating", "")]));
    dry["status"]["conditions"] = json!([
        {
            "type": "Ready", "status": "True", "reason": "DryRun", "message": "would create slice",
            "lastTransitionTime": "2026-01-01T11:00:00Z",
        },
        {
            "type": "Available", "status": "Unknown", "reason": "DryRun", "message": "",
            "lastTransitionTime": "2026-01-01T11:00:00Z",
        },
    ]);
    let text = drawn(&store(dry, &[lease("vm-1", "192.0.2.11", 1)], &[], &[]), Look::default());
    assert!(text.starts_with("! shop/greeter"), "{text}");
    assert!(text.contains("! it publishes nothing (DryRun): would create slice"), "{text}");
    assert!(!text.contains("gives no answer"), "{text}");
}

#[test]
fn a_registration_that_no_operator_has_looked_at_says_so() {
    let mut fresh = registration("greeter", json!([]));
    fresh["status"] = json!({ "conditions": [{
        "type": "Ready", "status": "Unknown", "reason": "Pending", "message": "waiting for the operator",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }] });
    let text = drawn(&store(fresh, &[], &[], &[]), Look::default());
    assert!(text.contains("✗ no operator has reported on this registration yet"), "{text}");
    assert!(!text.contains("waiting for the operator"), "{text}");
}

#[test]
fn traffic_that_goes_elsewhere_is_found() {
    let instances = json!([listed("vm-1", "Ready", "Beating", "")]);
    let slices = [
        slice("greeter-x7k2p", "beatkeeper.dev", &[("192.0.2.11", true), ("192.0.2.99", true)]),
        slice("by-hand", "staff", &[("192.0.2.66", true)]),
    ];
    let leases = [lease("vm-1", "192.0.2.11", 1)];
    let ready = ["192.0.2.11"];
    let text = drawn(
        &store(registration("greeter", instances), &leases, &slices, &ready),
        Look { width: 200, ..Look::default() },
    );
    for wanted in [
        "! shop/greeter: 1 of 1 instance ready",
        "! published, and of no instance that is known: 192.0.2.99",
        "! clients of Service greeter are also sent to 192.0.2.66, which EndpointSlice by-hand lists; its manager is staff",
        "· Endpoints greeter and the slices list different ready addresses",
        "EndpointSlice by-hand, IPv4 http 8080: 1 ready, managed by staff",
    ] {
        assert!(text.contains(wanted), "{wanted}:\n{text}");
    }
}

#[test]
fn an_instance_that_the_status_does_not_list_is_judged_by_its_lease_and_its_endpoint() {
    let slices = [slice("greeter-x7k2p", "beatkeeper.dev", &[("192.0.2.11", true)])];
    let leases = [lease("vm-1", "192.0.2.11", 1), lease("vm-2", "192.0.2.12", 31)];
    let store = store(registration("greeter", json!([])), &leases, &slices, &["192.0.2.11"]);
    let text = drawn(&store, Look::default());
    assert!(text.contains("├─ ● Ready     vm-1"), "{text}");
    assert!(text.contains("├─ ✗ Expired   vm-2"), "{text}");
}

#[test]
fn an_instance_that_stays_published_long_after_its_ttl_shows_that_no_operator_works() {
    let instances = json!([listed("vm-1", "Ready", "Beating", "")]);
    let slices = [slice("greeter-x7k2p", "beatkeeper.dev", &[("192.0.2.11", true)])];
    let silent = |seconds| {
        let leases = [lease("vm-1", "192.0.2.11", seconds)];
        drawn(
            &store(registration("greeter", instances.clone()), &leases, &slices, &["192.0.2.11"]),
            Look { width: 200, ..Look::default() },
        )
    };
    assert!(silent(35).starts_with("✓"), "{}", silent(35));
    let text = silent(36);
    assert!(text.contains("✗ vm-1 is still published, and silent for longer than the ttl of 30s: no operator has pruned it"), "{text}");
}

#[test]
fn registrations_with_problems_come_first_and_are_counted() {
    let mut store = shop();
    let well: beatkeeper_api::ServiceRegistration =
        serde_json::from_value(registration("accounts", json!([]))).unwrap();
    let key = beatkeeper_core::vocabulary::key::Key::of(&well.metadata);
    store.services.insert(key.clone(), Default::default());
    store.registrations.insert(key, well);
    let text = drawn(&store, Look::default());
    assert!(text.starts_with("! 1 of 2 registrations need attention\n\n✗ shop/greeter"), "{text}");
    assert!(text.contains("\n\n✓ shop/accounts: no instances\n"), "{text}");
}

//! The other questions of a decision, and their order: whether the Lease is well-formed, whether the instance
//! is cordoned or drained, and what the verdict says.

use super::*;

fn seen(beat: Heartbeat) -> Index {
    let mut index = index();
    index.observe("shop", beat, at(1000));
    index
}

/// Returns the verdict 5 s after a beat of an instance in Pod web-1. `edit` changes the Pod.
fn of_pod(edit: impl FnOnce(&mut Value)) -> Verdict {
    let mut pod = ready_pod("web-1", &["10.0.0.7"]);
    edit(&mut pod);
    World::new().pod("web-1", pod).one(&seen(pod_beat("web-1", 1, 1)), at(6000))
}

fn said(edit: impl FnOnce(&mut Heartbeat)) -> Verdict {
    let mut beat = beat("vm-1", 1, 1);
    edit(&mut beat);
    World::new().one(&seen(beat), at(6000))
}

#[test]
fn what_an_instance_says_of_itself_is_its_state() {
    for (health, expected) in [
        ("Passing", "Ready Beating: disk 91 %"),
        ("Failing", "NotReady HealthFailing: disk 91 %"),
        ("Draining", "Draining HealthDraining: disk 91 %"),
        (
            "passing",
            "NotReady HealthUnknown: annotation beatkeeper.dev/health is \"passing\"; it must be \
             Passing, Failing or Draining",
        ),
    ] {
        let verdict = said(|beat| {
            beat.content.health = health.parse();
            beat.content.note = Some("disk 91 %".to_owned());
        });
        assert_eq!(line(&verdict), expected);
    }
}

#[test]
fn a_lease_that_is_not_well_formed_is_rejected_with_what_to_do() {
    let verdict = said(|beat| beat.content.holder = None);
    assert_eq!(
        line(&verdict),
        "Rejected HolderMissing: Lease greeter.vm-1: set spec.holderIdentity to vm-1"
    );
    let verdict = said(|beat| beat.content.holder = Some("vm-2".to_owned()));
    assert_eq!(
        line(&verdict),
        "Rejected HolderMismatch: Lease greeter.vm-1: spec.holderIdentity is \"vm-2\", but the \
         name says vm-1; make them agree"
    );
    let verdict = said(|beat| beat.lease = "stray.vm-1".to_owned());
    assert_eq!(
        line(&verdict),
        "Rejected NameMismatch: Lease stray.vm-1 carries the label of registration greeter, so \
         its name must be greeter.<instance>, with at most 189 characters for the instance; \
         create it anew under that name"
    );
}

#[test]
fn a_misnamed_lease_never_shares_the_name_of_an_instance() {
    let mut index = seen(beat("vm-1", 1, 1));
    let stray = Heartbeat { lease: "vm-1".to_owned(), ..beat("vm-1", 1, 2) };
    index.observe("shop", stray, at(1000));
    let verdicts = World::new().decide(&index, at(2000));
    let names: Vec<_> = verdicts.iter().map(|verdict| &*verdict.instance).collect();
    assert_eq!(names, ["lease/vm-1", "vm-1"]);
}

#[test]
fn a_cordon_comes_before_life_and_a_cordoned_instance_is_not_suspected() {
    let mut index = index();
    let mut cordoned = beat("vm-1", 1, 1);
    cordoned.content.cordoned = Some("bad disk".to_owned());
    index.observe("shop", cordoned, at(1000));
    for now in [2000, 31_000, 900_000] {
        let verdict = World::new().one(&index, at(now));
        assert_eq!(line(&verdict), "Cordoned Cordoned: taken out by an operator: bad disk");
        assert_eq!(verdict.requeue_at, None);
        assert_eq!(verdict.lease.expect("its Lease").suspect, None);
    }
    let verdict = said(|beat| beat.content.cordoned = Some(String::new()));
    assert_eq!(line(&verdict), "Cordoned Cordoned: taken out by an operator");
}

#[test]
fn a_rejection_comes_before_a_cordon() {
    let verdict = said(|beat| {
        beat.content.addresses = vec!["127.0.0.1".into()];
        beat.content.cordoned = Some(String::new());
    });
    assert_eq!(verdict.reason.as_str(), "AddressRefused");
}

#[test]
fn a_pod_that_is_being_deleted_drains_whatever_its_instance_says() {
    let verdict = of_pod(|pod| {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    });
    assert_eq!(line(&verdict), "Draining PodTerminating: its Pod is being deleted");
}

#[test]
fn a_pod_whose_kubelet_is_dead_stays_ready_while_it_beats() {
    // The node controller does not know the state of the Pod: it sets Ready to False, and does not change
    // ContainersReady.
    let verdict = of_pod(|pod| {
        pod["status"]["conditions"] = json!([
            { "type": "Ready", "status": "False" },
            { "type": "ContainersReady", "status": "True" },
        ]);
    });
    assert_eq!(line(&verdict), "Ready Beating: ");
}

#[test]
fn a_pod_is_ready_only_with_its_containers_and_every_readiness_gate() {
    let not_ready = "NotReady PodNotReady: its Pod's ContainersReady condition or a readiness \
                     gate is not true";
    for (gates, conditions, expected) in [
        (json!([]), json!([{ "type": "ContainersReady", "status": "False" }]), not_ready),
        (json!([]), json!([]), not_ready),
        (
            json!([{ "conditionType": "lb" }]),
            json!([{ "type": "ContainersReady", "status": "True" }]),
            not_ready,
        ),
        (
            json!([{ "conditionType": "lb" }]),
            json!([
                { "type": "ContainersReady", "status": "True" },
                { "type": "lb", "status": "True" },
            ]),
            "Ready Beating: ",
        ),
    ] {
        let verdict = of_pod(|pod| {
            pod["spec"]["readinessGates"] = gates;
            pod["status"]["conditions"] = conditions;
        });
        assert_eq!(line(&verdict), expected);
    }
}

#[test]
fn what_the_instance_says_comes_before_the_kubelets_word() {
    let mut failing = pod_beat("web-1", 1, 1);
    failing.content.health = "Failing".parse();
    let mut pod = ready_pod("web-1", &["10.0.0.7"]);
    pod["status"]["conditions"] = json!([]);
    let verdict = World::new().pod("web-1", pod).one(&seen(failing), at(2000));
    assert_eq!(verdict.reason.as_str(), "HealthFailing");
}

#[test]
fn a_pod_that_has_run_to_its_end_is_gone() {
    for phase in ["Succeeded", "Failed"] {
        let mut pod = ready_pod("web-1", &["10.0.0.7"]);
        pod["status"]["phase"] = json!(phase);
        let world = World::new().pod("web-1", pod);
        assert_eq!(world.decide(&seen(pod_beat("web-1", 1, 1)), at(2000)), vec![], "{phase}");
        let mut earlier = pod_beat("web-1", 1, 1);
        earlier.content.origin =
            Origin::Pod { name: "web-1".to_owned(), uid: "an-earlier-one".to_owned() };
        let verdict = world.one(&seen(earlier), at(2000));
        assert_eq!(verdict.reason.as_str(), "PodReplaced", "it is not that Pod");
    }
}

#[test]
fn a_declared_instance_without_a_lease_waits_and_a_bad_one_is_rejected() {
    let world = World::with(json!({
        "ttl": "30s", "interval": "10s", "ports": [{ "name": "http", "port": 80 }],
        "instances": [
            { "name": "vm-2", "addresses": ["198.51.100.1"] },
            { "name": "vm-1", "addresses": ["192.0.2.1"] },
        ],
    }));
    let lines: Vec<_> = world.decide(&index(), at(0)).iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "Waiting NeverBeat: declared, but no heartbeat Lease greeter.vm-1 has been seen",
            "Rejected AddressRefused: 198.51.100.1 lies outside the ranges allowed for namespace \
             shop (192.0.2.0/24, 2001:db8::/64); ask the operator's administrator to allow it \
             (--outside-range shop=CIDR)",
        ]
    );
    let beating = world.decide(&seen(beat("vm-1", 1, 1)), at(2000));
    assert_eq!(beating.len(), 2, "its Lease takes the place of the declaration");
    assert_eq!(line(&beating[0]), "Ready Beating: ");
}

#[test]
fn verdicts_come_in_the_order_of_their_names() {
    let mut index = index();
    for name in ["b", "c", "a"] {
        index.observe("shop", beat(name, 1, 1), at(0));
    }
    let verdicts = World::new().decide(&index, at(1));
    let names: Vec<_> = verdicts.iter().map(|verdict| &*verdict.instance).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

//! From verdicts to endpoints: which instances are published, that each is published once, and with which
//! conditions.

use beatkeeper_api::InstanceState;

use super::*;
use crate::{
    plan::endpoint_conflicts::endpoints,
    vocabulary::{
        endpoint::{
            Conditions, Endpoint, EndpointPort, EndpointsReadiness, PodRef, PortSet, Protocol,
        },
        placement::Placement,
        reason::Reason,
    },
};

fn port(name: &str, port: u16) -> EndpointPort {
    EndpointPort { name: name.to_owned(), port, protocol: Protocol::Tcp, app_protocol: None }
}

fn verdict(instance: &str, state: InstanceState, ports: &[EndpointPort]) -> Verdict {
    Verdict {
        instance: instance.into(),
        state,
        reason: Reason::Beating,
        message: String::new(),
        placement: Some(Placement {
            addresses: vec!["192.0.2.1".parse().expect("an address")],
            ports: PortSet::new(ports.to_vec()),
            node_name: None,
            // In the tests, the zone shows which instance's claim was published.
            zone: Some(instance.to_owned()),
            hostname: None,
            pod: None,
            kubelet_ready: true,
        }),
        last_beat: None,
        lease: None,
        rival: None,
        requeue_at: None,
    }
}

fn ready(instance: &str, ports: &[EndpointPort]) -> Verdict {
    verdict(instance, InstanceState::Ready, ports)
}

fn in_pod(mut verdict: Verdict) -> Verdict {
    let placement = verdict.placement.as_mut().expect("a placement");
    placement.pod = Some(PodRef { namespace: "shop".into(), name: "p".into(), uid: "u".into() });
    verdict
}

/// Returns the instance and the port numbers of each endpoint.
fn summary(verdicts: &[Verdict]) -> Vec<(String, Vec<u16>)> {
    let of = |endpoint: &Endpoint| {
        let ports = endpoint.ports.ports().iter().map(|port| port.port).collect();
        (endpoint.zone.clone().expect("the instance"), ports)
    };
    endpoints(verdicts, false).iter().map(of).collect()
}

fn expect(list: &[(&str, &[u16])]) -> Vec<(String, Vec<u16>)> {
    list.iter().map(|(name, ports)| ((*name).to_owned(), ports.to_vec())).collect()
}

#[test]
fn two_instances_on_one_address_with_different_ports_are_both_published() {
    let verdicts = [ready("a", &[port("http", 8080)]), ready("b", &[port("http", 8081)])];
    assert_eq!(summary(&verdicts), expect(&[("a", &[8080]), ("b", &[8081])]));
}

#[test]
fn an_address_and_port_claimed_twice_is_published_once_and_the_first_name_has_it() {
    let verdicts = [ready("b", &[port("http", 8080)]), ready("a", &[port("http", 8080)])];
    assert_eq!(summary(&verdicts), expect(&[("a", &[8080])]));
}

#[test]
fn a_pods_claim_comes_first() {
    let http = [port("http", 8080)];
    assert_eq!(summary(&[ready("a", &http), in_pod(ready("b", &http))]), expect(&[("b", &[8080])]));
    let not_ready = in_pod(verdict("b", InstanceState::NotReady, &http));
    assert_eq!(summary(&[ready("a", &http), not_ready]), expect(&[("b", &[8080])]));
}

#[test]
fn of_two_claims_the_one_that_can_serve_more_is_published() {
    use InstanceState::{Draining, Held, NotReady, Ready};
    let http = [port("http", 8080)];
    for (a, b, winner) in [
        (NotReady, Ready, "b"),
        (Draining, Ready, "b"),
        (NotReady, Draining, "b"),
        (Draining, Held, "b"),
        (Held, Ready, "a"),
    ] {
        let verdicts = [verdict("a", a, &http), verdict("b", b, &http)];
        assert_eq!(summary(&verdicts), expect(&[(winner, &[8080])]), "{a:?} {b:?}");
    }
}

#[test]
fn the_second_claimant_takes_over_when_the_first_expires() {
    let http = [port("http", 8080)];
    let verdicts = [verdict("a", InstanceState::Expired, &http), ready("b", &http)];
    assert_eq!(summary(&verdicts), expect(&[("b", &[8080])]));
}

#[test]
fn of_claims_that_overlap_in_part_the_free_ports_are_published() {
    let verdicts =
        [ready("a", &[port("http", 8080)]), ready("b", &[port("http", 8080), port("admin", 9000)])];
    assert_eq!(summary(&verdicts), expect(&[("a", &[8080]), ("b", &[9000])]));
}

#[test]
fn one_number_under_two_names_or_protocols_is_two_ports() {
    let udp = EndpointPort { protocol: Protocol::Udp, ..port("dns", 53) };
    let verdicts = [ready("a", &[port("dns", 53), udp, port("dns-tcp", 53)])];
    assert_eq!(summary(&verdicts), expect(&[("a", &[53, 53, 53])]));
}

#[test]
fn without_ports_the_address_itself_is_claimed_once() {
    assert_eq!(summary(&[ready("a", &[]), ready("b", &[])]), expect(&[("a", &[])]));
}

#[test]
fn instances_with_equal_ports_share_one_port_set_in_any_order() {
    let (http, admin) = (port("http", 80), port("admin", 81));
    let mut other = ready("b", &[admin.clone(), http.clone()]);
    other.placement.as_mut().expect("a placement").addresses =
        vec!["192.0.2.2".parse().expect("an address")];
    let endpoints = endpoints(&[ready("a", &[http, admin]), other], false);
    assert_eq!(endpoints[0].ports, endpoints[1].ports);
}

#[test]
fn every_address_of_an_instance_is_an_endpoint_of_its_own() {
    let mut dual = ready("a", &[port("http", 80)]);
    let placement = dual.placement.as_mut().expect("a placement");
    placement.addresses.push("2001:db8::1".parse().expect("an address"));
    let endpoints = endpoints(&[dual], false);
    let addresses: Vec<_> = endpoints.iter().map(|e| e.address.to_string()).collect();
    assert_eq!(addresses, ["192.0.2.1", "2001:db8::1"]);
}

#[test]
fn conditions_and_endpoints_membership_follow_from_state_and_kubelet() {
    use EndpointsReadiness::{NotReady as Down, Ready as Up};
    use InstanceState as S;
    const T: bool = true;
    const F: bool = false;
    // Input: state, kubelet ready, publishNotReadyAddresses. Expected: ready, serving, terminating, place in
    // Endpoints.
    for (state, kubelet, not_ready_too, expected) in [
        (S::Ready, T, F, Some((T, T, F, Some(Up)))),
        (S::Held, T, F, Some((T, T, F, Some(Up)))),
        (S::Held, F, F, Some((F, F, F, Some(Down)))),
        (S::NotReady, T, F, Some((F, F, F, Some(Down)))),
        (S::NotReady, F, F, Some((F, F, F, Some(Down)))),
        (S::Draining, T, F, Some((F, T, T, None))),
        (S::Draining, F, F, Some((F, F, T, None))),
        (S::Ready, T, T, Some((T, T, F, Some(Up)))),
        (S::NotReady, F, T, Some((T, F, F, Some(Up)))),
        (S::Draining, T, T, Some((T, T, T, Some(Up)))),
        (S::Waiting, T, T, None),
        (S::Cordoned, T, T, None),
        (S::Expired, T, T, None),
        (S::Rejected, T, T, None),
    ] {
        let mut verdict = verdict("a", state, &[port("http", 80)]);
        verdict.placement.as_mut().expect("a placement").kubelet_ready = kubelet;
        let found = endpoints(&[verdict], not_ready_too).pop().map(|endpoint| {
            let Conditions { ready, serving, terminating } = endpoint.conditions;
            (ready, serving, terminating, endpoint.in_endpoints)
        });
        assert_eq!(found, expected, "{state:?} kubelet {kubelet} not-ready-too {not_ready_too}");
    }
}

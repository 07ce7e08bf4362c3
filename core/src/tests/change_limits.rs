//! Changes that a tenant toggles are written at a bounded pace. An endpoint that leaves is removed at once. In
//! the end the last wanted state is published.

use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::*;
use crate::{
    plan::change_limits::{EndpointLimiter, Permits},
    vocabulary::endpoint::{
        Conditions, Endpoint, EndpointPort, EndpointsReadiness, PortSet, Protocol,
    },
};

/// The time between two changes, in milliseconds.
const STEP: u64 = 50;

fn endpoint(number: u8, port: u16, ready: bool, terminating: bool) -> Endpoint {
    let in_endpoints = match (ready, terminating) {
        (true, _) => Some(EndpointsReadiness::Ready),
        (false, false) => Some(EndpointsReadiness::NotReady),
        (false, true) => None,
    };
    Endpoint {
        address: [192, 0, 2, number].into(),
        ports: PortSet::new(vec![EndpointPort {
            name: "http".to_owned(),
            port,
            protocol: Protocol::Tcp,
            app_protocol: None,
        }]),
        conditions: Conditions { ready, serving: ready || terminating, terminating },
        hostname: None,
        node_name: None,
        zone: None,
        pod: None,
        in_endpoints,
    }
}

fn ready(number: u8) -> Endpoint {
    endpoint(number, 8080, true, false)
}

fn failing(number: u8) -> Endpoint {
    endpoint(number, 8080, false, false)
}

fn draining(number: u8) -> Endpoint {
    endpoint(number, 8080, false, true)
}

/// Returns the slices that are written, one for each endpoint.
fn slices(endpoints: &[Endpoint]) -> Vec<Arc<EndpointSlice>> {
    let slice = |endpoint: &Endpoint| {
        let Conditions { ready, serving, terminating } = endpoint.conditions;
        let ports = endpoint.ports.ports().iter();
        let ports: Vec<Value> = ports
            .map(|port| json!({ "name": port.name, "port": port.port, "protocol": "TCP" }))
            .collect();
        let slice = json!({
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": [endpoint.address.to_string()],
                "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
            }],
            "ports": ports,
        });
        Arc::new(serde_json::from_value(slice).expect("a slice"))
    };
    endpoints.iter().map(slice).collect()
}

/// A registration. Its endpoints are published as far as `EndpointLimiter` permits.
#[derive(Default)]
struct Service {
    limiter: EndpointLimiter,
    published: Vec<Endpoint>,
    writes: usize,
    now: u64,
    requeue_at: Option<MonotonicTime>,
}

impl Service {
    /// Publishes the wanted endpoints as far as this is permitted. Returns whether all are published.
    fn wants(&mut self, wanted: Vec<Endpoint>) -> bool {
        let mut permits = Permits::default();
        let now = at(self.now);
        let published = slices(&self.published);
        let next = self.limiter.limit(wanted.clone(), &published, &mut permits, now);
        self.writes += usize::from(next != self.published);
        self.published = next;
        self.now += STEP;
        self.requeue_at = permits.requeue_at();
        self.published == wanted
    }

    /// Repeats this for half a minute. Returns the number of writes.
    fn toggles(&mut self, wanted: impl Fn(u64) -> Vec<Endpoint>) -> usize {
        let before = self.writes;
        for n in 0..30_000 / STEP {
            self.wants(wanted(n));
        }
        self.writes - before
    }

    /// Checks that the wanted endpoints get published, and that each requested look is at most a second ahead.
    fn comes_to(&mut self, wanted: &[Endpoint]) {
        while !self.wants(wanted.to_vec()) {
            let again = self.requeue_at.expect("to look again");
            assert!(again.since(at(self.now)) <= Duration::from_secs(1));
            self.now = self.now.max(u64::try_from(again.since(at(0)).as_millis()).expect("soon"));
        }
        assert_eq!(self.published, wanted);
        let writes = self.writes;
        self.now += 60_000;
        assert!(self.wants(wanted.to_vec()));
        assert_eq!(self.writes, writes, "nothing more to write");
    }
}

#[test]
fn health_that_is_toggled_is_written_about_twice_a_second_and_the_last_word_counts() {
    let mut service = Service::default();
    service.wants(vec![ready(1), ready(2)]);
    let health = |n| vec![if n % 2 == 0 { failing(1) } else { ready(1) }, ready(2)];
    let writes = service.toggles(health);
    assert!((30..=75).contains(&writes), "{writes}");
    service.comes_to(&[failing(1), ready(2)]);
}

#[test]
fn the_first_changes_are_written_at_once_in_either_direction() {
    let mut service = Service::default();
    assert!(service.wants(vec![ready(1)]));
    for _ in 0..3 {
        assert!(service.wants(vec![failing(1)]));
        assert!(service.wants(vec![ready(1)]));
    }
}

#[test]
fn while_one_instance_toggles_another_that_fails_or_drains_is_not_kept_ready() {
    let mut service = Service::default();
    service.wants(vec![ready(1), ready(2), ready(3)]);
    service.toggles(|n| vec![if n % 2 == 0 { failing(1) } else { ready(1) }, ready(2), ready(3)]);
    let began = service.now;
    for _ in 0..4 {
        service.wants(vec![ready(1), failing(2), draining(3)]);
    }
    assert!(service.now - began <= 200);
    assert_eq!(service.published[1..], [failing(2), draining(3)]);
}

#[test]
fn removals_are_written_at_once_whatever_is_toggled() {
    let mut service = Service::default();
    let all: Vec<Endpoint> = (1..=20).map(ready).collect();
    service.wants(all.clone());
    for n in 0..20 {
        let mut left = all[n + 1..].to_vec();
        if let Some(first) = left.first_mut().filter(|_| n % 2 == 0) {
            *first = failing(u8::try_from(n).expect("few") + 2);
        }
        service.wants(left.clone());
        let addresses = |all: &[Endpoint]| all.iter().map(|it| it.address).collect::<Vec<_>>();
        assert_eq!(addresses(&service.published), addresses(&left));
    }
}

#[test]
fn a_lease_that_is_deleted_and_made_in_a_loop_is_published_again_once_a_second() {
    let mut service = Service::default();
    service.wants(vec![ready(2)]);
    let comes_and_goes = |n| if n % 2 == 0 { vec![ready(1), ready(2)] } else { vec![ready(2)] };
    let writes = service.toggles(comes_and_goes);
    assert!((30..=80).contains(&writes), "{writes}");
    service.comes_to(&[ready(1), ready(2)]);
}

#[test]
fn edits_twenty_times_a_second_are_written_less_often() {
    let port = |n: u64| 8080 + u16::try_from(n).expect("few");
    let number = |n: u64| u8::try_from(n % 200 + 1).expect("small");
    type Edit<'a> = &'a dyn Fn(u64) -> Vec<Endpoint>;
    let edits: [(&str, Edit<'_>); 4] = [
        ("ports", &|n| vec![endpoint(1, port(n), true, false), endpoint(2, port(n), true, false)]),
        ("drain", &|n| vec![if n % 2 == 0 { draining(1) } else { ready(1) }]),
        ("zone", &|n| vec![Endpoint { zone: Some(format!("zone-{n}")), ..ready(1) }]),
        ("addresses", &|n| vec![ready(number(n))]),
    ];
    for (what, edit) in edits {
        let mut service = Service::default();
        service.wants(edit(0));
        let writes = service.toggles(edit);
        assert!(writes <= 350, "{what}: {writes} writes in 30 s");
        if what != "addresses" {
            assert!(writes <= 75, "{what}: {writes} writes in 30 s");
        }
        service.comes_to(&edit(7));
    }
}

#[test]
fn many_that_join_or_change_together_count_once_toward_the_pace() {
    let mut service = Service::default();
    let all = |how: fn(u8) -> Endpoint| (1..=200).map(how).collect::<Vec<_>>();
    assert!(service.wants(all(ready)));
    assert!(service.wants(all(failing)));
    assert!(service.wants(all(ready)));
    assert_eq!(service.writes, 3);
}

#[test]
fn an_instance_that_joins_at_the_address_of_another_is_no_port_change() {
    let mut service = Service::default();
    service.wants(vec![ready(1)]);
    service.toggles(|n| vec![if n % 2 == 0 { failing(1) } else { ready(1) }]);
    service.comes_to(&[ready(1)]);
    assert!(service.wants(vec![ready(1), endpoint(1, 9090, true, false)]));
    assert!(service.wants(vec![endpoint(1, 9090, true, false)]), "the other leaves at once");
}

#[test]
fn an_instance_published_in_another_form_does_not_count_as_joining_and_never_waits() {
    let together = |addresses: Value, port: Value| -> Arc<EndpointSlice> {
        let slice = json!({
            "addressType": "IPv4",
            "endpoints": [{ "addresses": addresses }],
            "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
        });
        Arc::new(serde_json::from_value(slice).expect("a slice"))
    };
    let mut limiter = EndpointLimiter::default();
    for n in 0..20 {
        let mut permits = Permits::default();
        assert_eq!(limiter.limit(vec![ready(n + 10)], &[], &mut permits, at(0)).len(), 1);
    }
    let restrained = |limiter: &mut EndpointLimiter, published: &[Arc<EndpointSlice>]| {
        let wanted = vec![ready(1), ready(2), ready(3)];
        let now = limiter.limit(wanted, published, &mut Permits::default(), at(1));
        now.iter().map(|endpoint| endpoint.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(restrained(&mut limiter, &[]), [""; 0], "who joins has to wait by now");
    let published = [
        together(json!(["192.0.2.1", "192.0.2.2"]), json!(8080)),
        together(json!(["192.0.2.3"]), Value::Null),
    ];
    assert_eq!(restrained(&mut limiter, &published), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
}

#[test]
fn port_edits_of_instances_with_one_address_are_limited_and_removals_do_not_wait() {
    let several = |ports: &[u16]| -> Vec<Endpoint> {
        ports.iter().map(|port| endpoint(1, *port, true, false)).collect()
    };
    let mut service = Service::default();
    service.comes_to(&several(&[8001, 8002]));
    let edits = |n: u64| {
        let n = u16::try_from(n % 2).expect("small");
        several(&[8001 + 10 * n, 8002 + 10 * n])
    };
    let writes = service.toggles(edits);
    assert!(writes <= 5 + 30, "{writes}");
    assert_eq!(
        service.published.len(),
        2,
        "each is published, with its new port or its former one"
    );
    service.comes_to(&several(&[9001, 9002]));
    service.toggles(edits);
    // One endpoint has left, and the other has a new port, so they cannot be matched with the former endpoints.
    assert!(service.wants(several(&[9001])));
    service.comes_to(&several(&[9001]));
    // Another endpoint that appears and disappears waits as any other new endpoint does.
    let writes = service.toggles(|n| several(if n % 2 == 0 { &[9001, 9002] } else { &[9001] }));
    assert!(writes <= 2 * (20 + 5 * 30), "{writes}");
}

//! What people change in registrations, Services and slices.

use std::rc::Rc;

use beatkeeper_api::registration::{ADOPT_ANNOTATION, DRY_RUN_ANNOTATION};
use beatkeeper_core::{objects::marks::SERVICE_NAME_LABEL, vocabulary::key::Key};
use serde_json::{Value, json};

use super::{pace, span};
use crate::{
    object::{ENDPOINTS, REGISTRATIONS, SERVICES, SLICES},
    random::Random,
    run::Run,
    wire::Ask,
};

#[derive(Debug, Clone)]
pub enum Edit {
    Pace {
        registration: usize,
        ttl: u64,
        interval: u64,
    },
    MinReady {
        registration: usize,
        min_ready: u64,
    },
    Ports {
        registration: usize,
        port: u16,
    },
    DryRun {
        registration: usize,
        lasts: u64,
    },
    /// The Service gets a selector, so that the cluster's own controller would publish it.
    Selector {
        registration: usize,
        lasts: u64,
    },
    DeleteService {
        registration: usize,
    },
    DeleteSlice {
        registration: usize,
    },
    ForeignSlice {
        registration: usize,
        lasts: u64,
    },
}

impl Edit {
    pub fn draw(random: &Random, ttl: u64) -> Self {
        let (registration, lasts) = (random.index(3), span(random, ttl));
        match random.between(0, 8) {
            0 | 1 => {
                let (ttl, interval) = pace(random);
                Self::Pace { registration, ttl, interval }
            }
            2 => Self::MinReady { registration, min_ready: random.pick(&[0, 1, 2, 4]) },
            3 => Self::Ports { registration, port: random.pick(&[80, 81, 8080]) },
            4 => Self::DryRun { registration, lasts },
            5 => Self::Selector { registration, lasts },
            6 => Self::DeleteService { registration },
            7 => Self::DeleteSlice { registration },
            _ => Self::ForeignSlice { registration, lasts },
        }
    }

    pub fn strike(self, run: &Rc<Run>) {
        match self {
            Self::Pace { registration, ttl, interval } => {
                let pace =
                    json!({ "ttl": format!("{ttl}ms"), "interval": format!("{interval}ms") });
                run.edit(registration, pace);
            }
            Self::MinReady { registration, min_ready } => {
                run.edit(registration, json!({ "protection": { "minReady": min_ready } }));
            }
            Self::Ports { registration, port } => {
                let ports = json!([{ "name": "http", "port": port, "protocol": "TCP" }]);
                run.edit(registration, json!({ "ports": ports }));
            }
            Self::DryRun { registration, lasts } => {
                let key = run.registration(registration);
                annotate(run, &key, DRY_RUN_ANNOTATION, Some("true"));
                run.later(lasts, move |run| annotate(run, &key, DRY_RUN_ANNOTATION, None));
            }
            Self::Selector { registration, lasts } => {
                let key = run.registration(registration);
                select(run, &key, json!({ "app": "selected" }));
                run.later(lasts, move |run| select(run, &key, Value::Null));
            }
            Self::DeleteService { registration } => {
                run.network.delete(SERVICES, &run.registration(registration), None);
            }
            Self::DeleteSlice { registration } => {
                delete_slice(run, &run.registration(registration));
            }
            Self::ForeignSlice { registration, lasts } => {
                let key = run.registration(registration);
                create_foreign_slice(run, &key);
                run.later(lasts, move |run| remove_foreign_slice(run, &key));
            }
        }
    }
}

fn annotate(run: &Run, registration: &Key, name: &str, value: Option<&str>) {
    let patch = json!({ "metadata": { "annotations": { name: value } } });
    run.network.patch(REGISTRATIONS, registration, patch);
}

fn select(run: &Run, service: &Key, selector: Value) {
    run.network.patch(SERVICES, service, json!({ "spec": { "selector": selector } }));
}

/// Undoes what may last.
pub fn undo(run: &Run, registration: &Key) {
    remove_foreign_slice(run, registration);
    annotate(run, registration, DRY_RUN_ANNOTATION, None);
    annotate(run, registration, ADOPT_ANNOTATION, None);
    select(run, registration, Value::Null);
    // What was written by hand and was not adopted.
    let by_hand = Key::new(&registration.namespace, by_hand(registration));
    for (kind, key) in [(SLICES, &by_hand), (ENDPOINTS, registration)] {
        let known = run.network.server.store.borrow().get(kind, key).cloned();
        if known.is_some_and(|known| !known.object().is_operators()) {
            run.network.delete(kind, key, None);
        }
    }
}

fn by_hand(registration: &Key) -> String {
    format!("{}-by-hand", registration.name)
}

fn delete_slice(run: &Run, service: &Key) {
    let key = {
        let store = run.network.server.store.borrow();
        store
            .all(SLICES)
            .find(|it| it.object().is_operators() && it.key().namespace == service.namespace)
            .map(|it| it.key())
    };
    key.iter().for_each(|key| run.network.delete(SLICES, key, None));
}

fn create_foreign_slice(run: &Run, service: &Key) {
    let slice = slice(&format!("{}-foreign", service.name), service, &["198.51.100.1"]);
    let _ = run.network.act(Ask::Create(slice), SLICES, &Key::new(&service.namespace, ""));
}

fn remove_foreign_slice(run: &Run, service: &Key) {
    let key = Key::new(&service.namespace, format!("{}-foreign", service.name));
    run.network.delete(SLICES, &key, None);
}

fn slice(name: &str, service: &Key, addresses: &[impl AsRef<str>]) -> Value {
    let endpoints: Vec<Value> =
        addresses.iter().map(|address| json!({ "addresses": [address.as_ref()] })).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": name, "labels": { SERVICE_NAME_LABEL: service.name } },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }],
    })
}

/// A person has written the Service and its endpoints by hand, and consents to their adoption.
pub fn create_legacy(run: &Run, registration: &Key, addresses: &[String], as_endpoints: bool) {
    let within = Key::new(&registration.namespace, "");
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": registration.name },
        "spec": { "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }] },
    });
    let _ = run.network.act(Ask::Create(service), SERVICES, &within);
    if as_endpoints {
        let all: Vec<Value> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        let endpoints = json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": { "name": registration.name },
            "subsets": [{
                "addresses": all,
                "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }],
            }],
        });
        let _ = run.network.act(Ask::Create(endpoints), ENDPOINTS, &within);
    }
    let slice = slice(&by_hand(registration), registration, addresses);
    let _ = run.network.act(Ask::Create(slice), SLICES, &within);
    annotate(run, registration, ADOPT_ANNOTATION, Some("true"));
}

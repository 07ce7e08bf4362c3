//! Combines many slices into one set of instances.

use std::{collections::BTreeMap, net::IpAddr};

use beatkeeper_api::text::plain;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::instance::{Change, Instance, Port};

/// The key of an instance. Two processes on one host differ by their ports.
type Key = (IpAddr, Vec<Port>);

/// The slices of one Service, and the instances that they show.
#[derive(Debug, Default)]
pub(super) struct MergedSlices {
    slices: BTreeMap<String, BTreeMap<Key, Instance>>,
    shown: BTreeMap<Key, Instance>,
}

impl MergedSlices {
    /// Returns all instances.
    pub(super) fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.shown.values()
    }

    /// Records a slice that is new or has changed.
    pub(super) fn put(&mut self, slice: EndpointSlice) -> Vec<Change> {
        self.slices.insert(name(&slice), instances_of(&slice));
        self.update()
    }

    /// Removes a slice.
    pub(super) fn remove(&mut self, slice: &EndpointSlice) -> Vec<Change> {
        self.slices.remove(&name(slice));
        self.update()
    }

    /// Replaces all slices.
    pub(super) fn replace(&mut self, slices: Vec<EndpointSlice>) -> Vec<Change> {
        self.slices = slices.iter().map(|slice| (name(slice), instances_of(slice))).collect();
        self.update()
    }

    fn update(&mut self) -> Vec<Change> {
        let mut now: BTreeMap<Key, Instance> = BTreeMap::new();
        for (key, instance) in self.slices.values().flatten() {
            // An instance that moves from one slice to another is in both for a while. It counts as ready if
            // either slice says so.
            let known = now.entry(key.clone()).or_insert_with(|| instance.clone());
            if instance.ready && !known.ready {
                known.clone_from(instance);
            }
        }
        let mut changes = Vec::new();
        for (key, instance) in &now {
            match self.shown.remove(key) {
                None => changes.push(Change::Created(instance.clone())),
                Some(before) if before != *instance => {
                    changes.push(Change::Updated(instance.clone()));
                }
                Some(_) => {}
            }
        }
        let gone = std::mem::replace(&mut self.shown, now);
        changes.extend(gone.into_values().map(Change::Deleted));
        changes
    }
}

fn name(slice: &EndpointSlice) -> String {
    slice.metadata.name.clone().unwrap_or_default()
}

fn instances_of(slice: &EndpointSlice) -> BTreeMap<Key, Instance> {
    let mut ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            Some(Port {
                port: u16::try_from(port.port?).ok()?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                name: port.name.clone().unwrap_or_default(),
            })
        })
        .collect();
    ports.sort();
    let endpoints = slice.endpoints.iter().flat_map(|endpoint| {
        let addresses = endpoint.addresses.iter().filter_map(|address| address.parse().ok());
        addresses.map(|address| instance(address, &ports, endpoint))
    });
    endpoints.map(|one| ((one.address, one.ports.clone()), one)).collect()
}

/// Makes text safe to print: a tenant that may write slices may write any text into them.
fn printable(text: Option<&String>) -> Option<String> {
    text.map(|text| plain(text).into_owned())
}

fn instance(address: IpAddr, ports: &[Port], endpoint: &Endpoint) -> Instance {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    // The defaults of the API: an endpoint without conditions is ready, is serving if it is ready, and is not
    // terminating.
    let ready = conditions.ready.unwrap_or(true);
    Instance {
        address,
        ports: ports.to_vec(),
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        pod: pod.and_then(|target| printable(target.name.as_ref())),
        node: printable(endpoint.node_name.as_ref()),
        zone: printable(endpoint.zone.as_ref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(name: &str, endpoints: &[(&str, bool)]) -> EndpointSlice {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(address, ready)| {
                json!({ "addresses": [address], "conditions": { "ready": ready, "serving": true } })
            })
            .collect();
        serde_json::from_value(json!({
            "metadata": { "name": name },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
            "endpoints": endpoints,
        }))
        .expect("a slice")
    }

    fn reported(changes: Vec<Change>) -> Vec<String> {
        let tell = |change| match change {
            Change::Created(one) => format!("+{}", one.address),
            Change::Updated(one) => format!("~{} {}", one.address, one.ready),
            Change::Deleted(one) => format!("-{}", one.address),
        };
        changes.into_iter().map(tell).collect()
    }

    #[test]
    fn what_comes_changes_and_goes_is_told_once() {
        let mut merged = MergedSlices::default();
        let first = slice("a", &[("192.0.2.1", true), ("192.0.2.2", true)]);
        assert_eq!(reported(merged.put(first.clone())), ["+192.0.2.1", "+192.0.2.2"]);
        assert_eq!(reported(merged.put(first)), [""; 0]);
        let next = slice("a", &[("192.0.2.2", false), ("192.0.2.3", true)]);
        assert_eq!(reported(merged.put(next)), ["~192.0.2.2 false", "+192.0.2.3", "-192.0.2.1"]);
        assert_eq!(reported(merged.remove(&slice("a", &[]))), ["-192.0.2.2", "-192.0.2.3"]);
    }

    #[test]
    fn an_instance_that_moves_to_another_slice_is_no_change() {
        let mut merged = MergedSlices::default();
        merged.put(slice("a", &[("192.0.2.1", true)]));
        assert_eq!(reported(merged.put(slice("b", &[("192.0.2.1", true)]))), [""; 0]);
        assert_eq!(reported(merged.put(slice("a", &[]))), [""; 0]);
        assert_eq!(reported(merged.remove(&slice("b", &[]))), ["-192.0.2.1"]);
    }

    #[test]
    fn a_new_list_tells_only_what_is_different() {
        let mut merged = MergedSlices::default();
        merged.put(slice("a", &[("192.0.2.1", true), ("192.0.2.2", true)]));
        let listed = vec![slice("b", &[("192.0.2.2", true), ("192.0.2.3", true)])];
        assert_eq!(reported(merged.replace(listed)), ["+192.0.2.3", "-192.0.2.1"]);
    }

    #[test]
    fn names_that_others_wrote_are_fit_to_be_printed() {
        let mut slice = slice("a", &[("192.0.2.1", true)]);
        slice.endpoints[0].zone = Some("z\n\u{1b}[2J".to_owned());
        slice.endpoints[0].target_ref =
            serde_json::from_value(json!({ "kind": "Pod", "name": "web\n" })).expect("a reference");
        let mut merged = MergedSlices::default();
        merged.put(slice);
        let shown: Vec<_> =
            merged.instances().map(|one| (one.pod.clone(), one.zone.clone())).collect();
        assert_eq!(shown, [(Some("web\\n".to_owned()), Some("z\\n\\u{1b}[2J".to_owned()))]);
    }

    #[test]
    fn two_processes_of_one_host_are_told_apart_by_their_ports() {
        let mut merged = MergedSlices::default();
        merged.put(slice("a", &[("192.0.2.1", true)]));
        let mut other = slice("b", &[("192.0.2.1", true)]);
        if let Some(ports) = &mut other.ports {
            ports[0].port = Some(9090);
        }
        assert_eq!(reported(merged.put(other)), ["+192.0.2.1"]);
        assert_eq!(merged.instances().count(), 2);
    }
}

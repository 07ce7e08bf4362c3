//! The fields that are kept of a Pod. They are few, because all Pods are watched.

use std::net::IpAddr;

use beatkeeper_api::registration::PUBLISHED_GATE;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};

use crate::{objects::labels::Labels, vocabulary::endpoint::Protocol};

/// The fields of a Pod that affect its endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// Its uid.
    pub uid: String,
    /// Its labels, for the registration's selector.
    pub labels: Labels,
    /// Its addresses according to the API server. A Pod that has terminated may still list an address that now belongs
    /// to another Pod ([`PodView::holds`]).
    pub ips: Vec<IpAddr>,
    /// Whether its addresses are those of its Node.
    pub host_network: bool,
    /// The addresses of the Node on which it runs, according to its kubelet.
    pub host_ips: Vec<IpAddr>,
    /// The Node on which it runs.
    pub node: Option<String>,
    /// Its host name and the headless Service that publishes it, if it has both.
    pub hostname_in: Option<(String, String)>,
    /// Whether it has terminated, with success or failure.
    pub terminal: bool,
    /// Whether it is being deleted. This is checked here because a kubelet that is dead never completes the deletion.
    pub deleting: bool,
    /// Whether the kubelet says that it is ready: ContainersReady and all readiness gates except the operator's own,
    /// which depends on this value. The condition Ready is not used, because the node controller sets it to false when
    /// it only assumes that a silent Node is dead.
    pub ready: bool,
    /// The condition of the operator's readiness gate, if the Pod has this gate.
    pub gate: Option<Gate>,
    /// Its named container ports.
    pub ports: Vec<(String, Protocol, u16)>,
}

/// The condition of the operator's readiness gate in the status of a Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gate {
    /// The value of the condition; `None` before it was written.
    pub published: Option<bool>,
    /// The reason of the condition.
    pub reason: String,
}

impl PodView {
    /// Takes the view of a Pod.
    pub fn of(pod: &Pod) -> Self {
        let metadata = &pod.metadata;
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            labels: metadata.labels.as_ref().map(Labels::from).unwrap_or_default(),
            ips: status.map(ips).unwrap_or_default(),
            host_network: spec.is_some_and(|spec| spec.host_network == Some(true)),
            host_ips: status.map(host_ips).unwrap_or_default(),
            node: spec.and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty()),
            hostname_in: spec.and_then(|spec| {
                let hostname = spec.hostname.clone().filter(|name| !name.is_empty())?;
                let subdomain = spec.subdomain.clone().filter(|name| !name.is_empty())?;
                Some((hostname, subdomain))
            }),
            terminal: status
                .and_then(|status| status.phase.as_deref())
                .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed")),
            deleting: metadata.deletion_timestamp.is_some(),
            ready: spec.zip(status).is_some_and(|(spec, status)| ready(spec, status)),
            gate: spec.and_then(|spec| gate(spec, status)),
            ports: spec.map(ports).unwrap_or_default(),
        }
    }

    /// The addresses that no other object can have. A Pod that has terminated has none, because the network assigns
    /// them again. The addresses of a Node stay with the Node.
    pub fn holds(&self) -> &[IpAddr] {
        if self.terminal && !self.host_network { &[] } else { &self.ips }
    }

    /// The number of a named port, resolved in the same way as by kubelet and the endpoint controllers.
    pub fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.ports
            .iter()
            .find(|(known, transport, _)| known == name && *transport == protocol)
            .map(|(_, _, port)| *port)
    }
}

fn ips(status: &PodStatus) -> Vec<IpAddr> {
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut ips: Vec<IpAddr> =
        listed.chain(status.pod_ip.as_deref()).filter_map(|ip| ip.parse().ok()).collect();
    ips.sort();
    ips.dedup();
    ips
}

fn host_ips(status: &PodStatus) -> Vec<IpAddr> {
    let listed = status.host_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut ips: Vec<IpAddr> =
        listed.chain(status.host_ip.as_deref()).filter_map(|ip| ip.parse().ok()).collect();
    ips.sort();
    ips.dedup();
    ips
}

fn ready(spec: &PodSpec, status: &PodStatus) -> bool {
    let holds = |wanted: &str| {
        status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == wanted && condition.status == "True")
    };
    holds("ContainersReady")
        && spec
            .readiness_gates
            .iter()
            .flatten()
            .all(|gate| gate.condition_type == PUBLISHED_GATE || holds(&gate.condition_type))
}

fn gate(spec: &PodSpec, status: Option<&PodStatus>) -> Option<Gate> {
    let mut gates = spec.readiness_gates.iter().flatten();
    gates.find(|gate| gate.condition_type == PUBLISHED_GATE)?;
    let mut conditions = status.iter().flat_map(|status| status.conditions.iter().flatten());
    let told = conditions.find(|condition| condition.type_ == PUBLISHED_GATE);
    Some(told.map_or_else(Gate::default, |told| Gate {
        published: Some(told.status == "True"),
        reason: told.reason.iter().flat_map(|reason| reason.chars()).take(64).collect(),
    }))
}

fn ports(spec: &PodSpec) -> Vec<(String, Protocol, u16)> {
    // Init containers with restart policy Always are sidecars. They run, and may serve, beside the other containers.
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars).flat_map(named_ports).collect()
}

fn named_ports(container: &Container) -> impl Iterator<Item = (String, Protocol, u16)> {
    container.ports.iter().flatten().filter_map(|port| {
        let name = port.name.clone()?;
        let protocol = match port.protocol.as_deref() {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(_) => return None,
        };
        Some((name, protocol, u16::try_from(port.container_port).ok().filter(|port| *port > 0)?))
    })
}

//! The ports with which an instance would be published.

use std::net::IpAddr;

use beatkeeper_api::{AdoptedInstance, InstanceState};
use beatkeeper_core::{
    adoption::adopted::ADOPTED,
    decide::verdict::Verdict,
    objects::registration::{PortTemplate, Registration, TargetPort},
    vocabulary::{
        endpoint::{EndpointPort, PortSet},
        key::Key,
        placement::Placement,
        reason::Reason,
    },
};
use k8s_openapi::api::{
    core::v1::Endpoints,
    discovery::v1::{Endpoint, EndpointSlice},
};

use super::{
    instance::{Instance, Published},
    publication::how,
    store::Store,
};

/// What the ports of instances come from.
pub(super) struct Ports<'a> {
    /// The ports of the registration that the Service has, too.
    pub(super) templates: &'a [PortTemplate],
    pub(super) spec: &'a Registration,
    pub(super) store: &'a Store,
    /// The adopted instances that the operator remembers.
    pub(super) adopted: &'a [AdoptedInstance],
    /// The slices of the Service.
    pub(super) slices: &'a [&'a EndpointSlice],
    /// The Endpoints of the Service.
    pub(super) endpoints: Option<&'a Endpoints>,
}

impl Ports<'_> {
    /// The ports of an instance at these addresses. A port that cannot be resolved is left out.
    pub(super) fn of_instance(&self, instance: &Instance, addresses: &[IpAddr]) -> PortSet {
        if instance.name.starts_with(ADOPTED) {
            return self.of_adopted(&instance.name, addresses);
        }
        let declared = self.spec.declared.get(&instance.name);
        let pod = instance
            .pod
            .as_ref()
            .and_then(|pod| self.store.pods.get(&Key::new(&*self.spec.key.namespace, &*pod.name)));
        let number = |template: &PortTemplate| {
            let own = declared.into_iter().flat_map(|it| &it.ports);
            let own = own.into_iter().find(|own| own.name == template.name);
            match (own, &template.target) {
                (Some(own), _) => u16::try_from(own.port).ok().filter(|number| *number > 0),
                (None, TargetPort::Number(number)) => Some(*number),
                (None, TargetPort::Name(name)) => pod?.port(name, template.protocol),
            }
        };
        self.resolved(number)
    }

    /// The ports of an adopted instance: those with which it was taken over. A dry run stores none, and it would take
    /// over those that the address is published with.
    fn of_adopted(&self, name: &str, addresses: &[IpAddr]) -> PortSet {
        let known = self.adopted.iter().find(|entry| entry.name == name);
        if let Some(entry) = known {
            return self.resolved(|template| {
                let own = entry.ports.iter().find(|own| own.name == template.name)?;
                u16::try_from(own.port).ok()
            });
        }
        let is_here = |text: &str| text.parse().is_ok_and(|it| addresses.contains(&it));
        let in_slices = self.slices.iter().filter(|slice| {
            slice.endpoints.iter().flat_map(|it| &it.addresses).any(|it| is_here(it))
        });
        let in_slices = in_slices.flat_map(|slice| slice.ports.iter().flatten());
        let in_slices = in_slices.map(|port| (port.name.as_deref(), port.port));
        let subsets = self.endpoints.and_then(|it| it.subsets.as_ref()).into_iter().flatten();
        let in_endpoints = subsets.filter(|subset| {
            let both = [&subset.addresses, &subset.not_ready_addresses];
            both.into_iter().flatten().flatten().any(|address| is_here(&address.ip))
        });
        let in_endpoints = in_endpoints.flat_map(|subset| subset.ports.iter().flatten());
        let in_endpoints = in_endpoints.map(|port| (port.name.as_deref(), Some(port.port)));
        self.among(in_slices.chain(in_endpoints))
    }

    /// The verdict on what the cluster's own controllers would leave of an endpoint: it stays as it is until it beats.
    pub(super) fn left(&self, slice: &EndpointSlice, endpoint: &Endpoint) -> Option<Verdict> {
        let first = endpoint.addresses.first()?;
        let state = match how(endpoint) {
            Published::Ready => InstanceState::Ready,
            Published::Draining => InstanceState::Draining,
            Published::NotReady | Published::No => InstanceState::NotReady,
        };
        let ports = slice.ports.iter().flatten().map(|port| (port.name.as_deref(), port.port));
        let placement = Placement {
            addresses: endpoint.addresses.iter().filter_map(|text| text.parse().ok()).collect(),
            ports: self.among(ports),
            node_name: None,
            zone: None,
            hostname: None,
            pod: None,
            kubelet_ready: true,
        };
        let (name, message) = (format!("{ADOPTED}{first}"), String::new());
        Some(Verdict::without_lease(&name, state, Reason::Adopted, message, Some(placement)))
    }

    fn resolved(&self, number: impl Fn(&PortTemplate) -> Option<u16>) -> PortSet {
        let port = |template: &PortTemplate| Some(port(template, number(template)?));
        PortSet::new(self.templates.iter().filter_map(port).collect())
    }

    /// These published ports, as far as the registration has ports of their names.
    fn among<'p>(
        &self,
        published: impl Iterator<Item = (Option<&'p str>, Option<i32>)>,
    ) -> PortSet {
        let found = published.filter_map(|(name, number)| {
            let name = name.unwrap_or_default();
            let template = self.templates.iter().find(|template| template.name == name)?;
            Some(port(template, u16::try_from(number?).ok().filter(|number| *number > 0)?))
        });
        PortSet::new(found.collect())
    }
}

fn port(template: &PortTemplate, number: u16) -> EndpointPort {
    EndpointPort {
        name: template.name.clone(),
        port: number,
        protocol: template.protocol,
        app_protocol: template.app_protocol.clone(),
    }
}

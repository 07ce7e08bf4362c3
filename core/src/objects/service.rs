//! The fields that are kept of a Service.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use crate::{
    objects::marks::{Marked, mark_of, owner_of},
    vocabulary::endpoint::Family,
};

/// The fields of a Service that affect its endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceView {
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// The uid of the registration that it belongs to, or otherwise of its controlling owner.
    pub owner: Option<String>,
    /// The name of that owner, if it is a registration.
    pub registration: Option<String>,
    /// Whether only the operator's annotation names its registration, and no owner reference does.
    pub annotated: bool,
    /// The namespace in the operator's annotation. Earlier versions did not write it.
    pub namespace: Option<String>,
    /// Whether it selects Pods, so that Kubernetes' own controllers publish its endpoints.
    pub selects: bool,
    /// Whether it is an alias for a DNS name. Such a Service has no endpoints.
    pub external_name: bool,
    /// Whether it has no cluster IP, so that DNS returns the endpoints themselves.
    pub headless: bool,
    /// Its address families, the primary one first.
    pub families: Vec<Family>,
    /// Its cluster IPs.
    pub cluster_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePortView>,
    /// Whether endpoints that are not ready should be published as ready.
    pub publish_not_ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePortView {
    /// Its name; empty for the only, unnamed port.
    pub name: String,
    /// Its number.
    pub port: i32,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// Its target port as text.
    pub target_port: String,
    /// Its application protocol.
    pub app_protocol: Option<String>,
}

impl ServiceView {
    /// Takes the view of a Service.
    pub fn of(service: &Service) -> Self {
        let metadata = &service.metadata;
        let empty = ServiceSpec::default();
        let spec = service.spec.as_ref().unwrap_or(&empty);
        let families: Vec<Family> = spec
            .ip_families
            .iter()
            .flatten()
            .filter_map(|family| match family.as_str() {
                "IPv4" => Some(Family::V4),
                "IPv6" => Some(Family::V6),
                _ => None,
            })
            .collect();
        let registration = owner_of(metadata);
        let mut references = metadata.owner_references.iter().flatten();
        let controller = references.find(|owner| owner.controller == Some(true));
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            owner: registration
                .map(|(uid, _)| uid.to_owned())
                .or_else(|| controller.map(|owner| owner.uid.clone())),
            registration: registration.map(|(_, name)| name.to_owned()),
            annotated: registration.is_some() && controller.is_none(),
            namespace: mark_of(metadata).and_then(|marked| marked.namespace).map(str::to_owned),
            selects: spec.selector.as_ref().is_some_and(|selector| !selector.is_empty()),
            external_name: spec.type_.as_deref() == Some("ExternalName"),
            headless: spec.cluster_ip.as_deref() == Some("None"),
            families: if families.is_empty() { vec![Family::V4] } else { families },
            cluster_ips: spec
                .cluster_ips
                .iter()
                .flatten()
                .filter_map(|ip| ip.parse().ok())
                .collect(),
            ports: spec
                .ports
                .iter()
                .flatten()
                .map(|port| ServicePortView {
                    name: port.name.clone().unwrap_or_default(),
                    port: port.port,
                    protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                    target_port: match &port.target_port {
                        Some(target) => super::registration::text_of(target),
                        None => port.port.to_string(),
                    },
                    app_protocol: port.app_protocol.clone(),
                })
                .collect(),
            publish_not_ready: spec.publish_not_ready_addresses == Some(true),
            deleting: metadata.deletion_timestamp.is_some(),
        }
    }

    /// The content of the operator's annotation on the Service, if it has one.
    pub fn marked(&self) -> Option<Marked<'_>> {
        Some(Marked {
            namespace: self.namespace.as_deref(),
            name: self.registration.as_deref().filter(|_| self.annotated)?,
            uid: self.owner.as_deref()?,
            service: None,
        })
    }
}

//! Registrations as documents for programs: what `-o json` and `-o yaml` print.

use beatkeeper_api::duration;
use jiff::Timestamp;
use serde::Serialize;

use crate::model::{
    finding::Finding,
    instance::Instance,
    publication::{EndpointCount, PublishedEndpoints, PublishedService, PublishedSlice},
    registration::{ConditionView, Picture, RegistrationView, Unread},
};
use crate::times::rfc3339;

/// What is printed: one registration, or a list of them.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Report {
    /// One that was asked for by its name.
    One(Box<RegistrationReport>),
    /// All that were found.
    All {
        /// The registrations.
        items: Vec<RegistrationReport>,
        /// What could not be read.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        unread: Vec<UnreadReport>,
    },
}

/// A registration.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/kubectl.md describes the fields")]
pub struct RegistrationReport {
    pub namespace: String,
    pub name: String,
    pub service_name: String,
    pub ttl: String,
    pub interval: String,
    pub status: String,
    pub well: bool,
    pub findings: Vec<FindingReport>,
    pub counts: CountsReport,
    pub conditions: Vec<ConditionReport>,
    pub instances: Vec<InstanceReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceReport>,
    pub slices: Vec<SliceReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<EndpointsReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<UnreadReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "docs/kubectl.md describes the fields")]
pub struct FindingReport {
    pub severity: &'static str,
    pub what: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "docs/kubectl.md describes the fields")]
pub struct CountsReport {
    pub total: usize,
    #[serde(flatten)]
    pub by_state: std::collections::BTreeMap<&'static str, usize>,
}

#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "docs/kubectl.md describes the fields")]
pub struct ConditionReport {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: bool,
    pub reason: String,
    pub message: String,
    pub since: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/kubectl.md describes the fields")]
pub struct InstanceReport {
    pub name: String,
    pub state: &'static str,
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    pub judged_by: &'static str,
    pub published: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_beat: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub carried: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_ahead_seconds: Option<f64>,
    pub addresses: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/kubectl.md describes the fields")]
pub struct ServiceReport {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub cluster_ips: Vec<String>,
    pub ports: Vec<String>,
    pub selects: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/kubectl.md describes the fields")]
pub struct SliceReport {
    pub name: String,
    pub address_type: String,
    pub ready: usize,
    pub not_ready: usize,
    pub draining: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign_manager: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/kubectl.md describes the fields")]
pub struct EndpointsReport {
    pub name: String,
    pub ready: usize,
    pub not_ready: usize,
    pub truncated: bool,
    pub managed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "docs/kubectl.md describes the fields")]
pub struct UnreadReport {
    pub what: String,
    pub why: String,
}

impl Report {
    /// The report of a picture. `one` says whether one registration was asked for by its name.
    pub fn of(picture: &Picture, one: bool, now: Timestamp) -> Self {
        let unread = || picture.unread.iter().map(UnreadReport::of).collect();
        let mut items: Vec<_> =
            picture.registrations.iter().map(|it| RegistrationReport::of(it, now)).collect();
        match items.pop() {
            Some(mut item) if one => {
                item.unread = unread();
                Self::One(Box::new(item))
            }
            last => {
                items.extend(last);
                Self::All { items, unread: unread() }
            }
        }
    }
}

impl RegistrationReport {
    fn of(view: &RegistrationView, now: Timestamp) -> Self {
        let counts = view.counts();
        Self {
            namespace: view.key.namespace.clone(),
            name: view.key.name.clone(),
            service_name: view.service_name.clone(),
            ttl: duration::format(view.ttl),
            interval: duration::format(view.interval),
            status: view.reported.reason().to_owned(),
            well: view.is_well(),
            findings: view.findings.iter().map(FindingReport::of).collect(),
            counts: CountsReport {
                total: counts.total(),
                by_state: beatkeeper_api::InstanceState::ALL
                    .into_iter()
                    .map(|state| (state.as_str(), counts.of_state(state)))
                    .filter(|(_, count)| *count > 0)
                    .collect(),
            },
            conditions: view.reported.conditions.iter().map(ConditionReport::of).collect(),
            instances: view.instances.iter().map(|it| InstanceReport::of(it, now)).collect(),
            service: view.service.as_ref().map(ServiceReport::of),
            slices: view.slices.iter().map(SliceReport::of).collect(),
            endpoints: view.endpoints.as_ref().map(EndpointsReport::of),
            orphans: view.orphans.iter().cloned().collect(),
            unread: Vec::new(),
        }
    }
}

impl FindingReport {
    /// The report of one finding.
    pub fn of(finding: &Finding) -> Self {
        let Finding { severity, what, remedy } = finding;
        Self { severity: severity.as_str(), what: what.clone(), remedy: remedy.clone() }
    }
}

impl ConditionReport {
    fn of(condition: &ConditionView) -> Self {
        let ConditionView { type_, holds, reason, message, since } = condition;
        Self {
            type_: type_.clone(),
            status: *holds,
            reason: reason.clone(),
            message: message.clone(),
            since: rfc3339(*since),
        }
    }
}

impl InstanceReport {
    /// The report of one instance.
    pub fn of(instance: &Instance, now: Timestamp) -> Self {
        let (beat, carried) = (instance.beat, instance.is_carried(now));
        let ahead = beat.map(|beat| beat.ahead).filter(|ahead| !ahead.is_zero());
        let tenths = |seconds: f64| (seconds * 10.0).round() / 10.0;
        let found = instance.pod.as_ref().and_then(|pod| pod.found.as_ref());
        Self {
            name: instance.name.clone(),
            state: instance.state.as_str(),
            reason: instance.reason.to_string(),
            message: instance.message.clone(),
            judged_by: instance.judged.as_str(),
            published: instance.published.as_str(),
            since: instance.since.map(rfc3339),
            last_beat: beat.filter(|_| !carried).map(|beat| rfc3339(beat.at)),
            carried,
            silent_seconds: instance.silent(now).map(|it| tenths(it.as_secs_f64())),
            clock_ahead_seconds: ahead.map(|ahead| tenths(ahead.as_secs_f64())),
            addresses: instance.addresses.clone(),
            zone: instance.zone.clone(),
            pod: instance.pod.as_ref().map(|pod| pod.name.clone()),
            node: found.and_then(|pod| pod.node.clone()),
            lease: instance.lease.clone(),
            version: instance.version.clone(),
        }
    }
}

impl ServiceReport {
    fn of(service: &PublishedService) -> Self {
        let PublishedService { name, kind, cluster_ips, ports, selects, external_name: _ } =
            service;
        Self {
            name: name.clone(),
            kind: kind.clone(),
            cluster_ips: cluster_ips.clone(),
            ports: ports.clone(),
            selects: *selects,
        }
    }
}

impl SliceReport {
    fn of(slice: &PublishedSlice) -> Self {
        let PublishedSlice { name, foreign_manager, family, count, ports: _ } = slice;
        let EndpointCount { ready, not_ready, draining } = *count;
        let (name, address_type) = (name.clone(), family.clone());
        let foreign_manager = foreign_manager.clone();
        Self { name, address_type, ready, not_ready, draining, foreign_manager }
    }
}

impl EndpointsReport {
    fn of(endpoints: &PublishedEndpoints) -> Self {
        let PublishedEndpoints { name, ours, count, ready: _, truncated } = endpoints;
        let EndpointCount { ready, not_ready, draining: _ } = *count;
        Self { name: name.clone(), ready, not_ready, truncated: *truncated, managed: *ours }
    }
}

impl UnreadReport {
    /// The report of something that could not be read.
    pub fn of(unread: &Unread) -> Self {
        let Unread { what, why } = unread;
        Self { what: what.clone(), why: why.clone() }
    }
}

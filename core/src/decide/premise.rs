//! What a decision rests on that concerns all instances. With another premise, no verdict stands.

use std::{collections::BTreeMap, time::Duration};

use beatkeeper_api::InstanceSpec;

use crate::{
    decide::{
        cordons::Cordon,
        facts::{Facts, Liveness, TargetService},
    },
    liveness::ttl::TtlHistory,
    objects::{
        labels::LabelMatch,
        registration::{PortTemplate, Registration},
    },
    vocabulary::{endpoint::Family, key::Key, monotonic_time::MonotonicTime, pace::Pace},
};

/// What a decision rests on that concerns all instances, apart from the outside ranges: they are those of the process.
///
/// The proven time is not part of it, and neither is what gateways say. A verdict stands only if no beat is late. Then
/// neither matters: both only move deadlines, or hold an instance that is past its deadline, and a deadline comes after
/// the moment at which a beat is late.
#[derive(Debug, Clone, PartialEq)]
pub struct Premise {
    key: Key,
    uid: String,
    service_name: String,
    pace: Pace,
    selector: Option<LabelMatch>,
    declared: BTreeMap<String, InstanceSpec>,
    ttl: TtlHistory,
    term_began: MonotonicTime,
    families: Vec<Family>,
    ports: Vec<PortTemplate>,
    cordons: Vec<Cordon>,
}

impl Premise {
    /// The premise of a decision about these facts. `None` if it is one of those that are never kept: in a dry run, with a
    /// selector that cannot be read, with adopted instances, or while nothing may be added.
    pub fn of(facts: &Facts<'_>) -> Option<Self> {
        let Facts { registration, instances, liveness, service, published, .. } = facts;
        let Liveness { ttl, evidence: _, unreadable: _, term_began } = liveness;
        let TargetService { name: _, families, ports, shared_ports: _ } = service;
        // What is not named here concerns no verdict, or is looked at anew in each decision.
        let Registration {
            key,
            uid,
            generation: _,
            service_name,
            ttl: _,
            interval: _,
            ports: _,
            selector,
            selector_unreadable,
            declared,
            min_ready: _,
            ending: _,
            dry_run,
            consent: _,
            cordoned: _,
            uncordon: _,
            problems: _,
        } = registration;
        let is_special = *dry_run
            || *selector_unreadable
            || !instances.adopted.is_empty()
            || published.frozen.is_some();
        (!is_special).then(|| Self {
            key: key.clone(),
            uid: uid.clone(),
            service_name: service_name.clone(),
            pace: registration.pace(),
            selector: selector.clone(),
            declared: declared.clone(),
            ttl: TtlHistory::clone(ttl),
            term_began: *term_began,
            families: families.to_vec(),
            ports: ports.to_vec(),
            cordons: instances.cordons.to_vec(),
        })
    }

    /// The registration.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Whether no beat of an instance whose verdict stands can be missing in the window of the outage guard: each has
    /// arrived in it.
    pub(super) fn beats_arrive_in_the_window(&self, overdue_after: Duration) -> bool {
        overdue_after <= self.pace.slack()
    }
}

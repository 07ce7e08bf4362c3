//! An address in an object that others have written: the adopted instance that it would become, and whether it may
//! become one.

use std::net::IpAddr;

use beatkeeper_api::{AdoptedInstance, InstancePort};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    adoption::{
        adopted::{ADOPTED, Adopted},
        refusal::{AdoptionProblem, AdoptionRefusal},
        scene::AdoptionInputs,
    },
    vocabulary::{address, endpoint::Family},
};

/// An address in a hand-written object, with the details that the object gives.
pub(super) struct Found {
    pub(super) address: IpAddr,
    pub(super) text: String,
    pub(super) from: String,
    pub(super) ports: Vec<InstancePort>,
    pub(super) not_ready: bool,
    pub(super) node_name: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) hostname: Option<String>,
    /// Name and uid of the Pod for which a controller of the cluster published the address.
    pub(super) pod: Option<(String, String)>,
}

impl Found {
    /// Whether both can be one instance: no two of their ports have the same name and different numbers.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        let differs = |a: &InstancePort, b: &InstancePort| a.name == b.name && a.port != b.port;
        !self.ports.iter().any(|a| other.ports.iter().any(|b| differs(a, b)))
    }

    /// Merges what another object says about the same instance. An instance that is ready in one object is ready.
    pub(super) fn absorb(&mut self, other: Self) {
        let Self { address: _, text: _, from: _, ports, not_ready, node_name, zone, hostname, pod } =
            other;
        for port in ports {
            if !self.ports.contains(&port) {
                self.ports.push(port);
            }
        }
        self.not_ready &= not_ready;
        self.node_name = self.node_name.take().or(node_name);
        self.zone = self.zone.take().or(zone);
        self.hostname = self.hostname.take().or(hostname);
        self.pod = self.pod.take().or(pod);
    }

    /// The adopted instance as it is recorded in the status. `n` counts the instances at one address, from 0.
    pub(super) fn adopted(&self, n: usize, wall: Timestamp) -> Adopted {
        let suffix = if n == 0 { String::new() } else { format!("#{}", n + 1) };
        let since = Timestamp::from_second(wall.as_second()).unwrap_or(wall);
        let entry = AdoptedInstance {
            name: format!("{ADOPTED}{}{suffix}", self.address),
            address: self.address.to_string(),
            from: self.from.clone(),
            since: Some(Time(since)),
            ports: self.ports.clone(),
            not_ready: self.not_ready,
            node_name: self.node_name.clone(),
            zone: self.zone.clone(),
            hostname: self.hostname.clone(),
            pod: self.pod.as_ref().map(|(name, uid)| format!("{name}/{uid}")),
            old_beats: Vec::new(),
        };
        Adopted { address: self.address, entry }
    }

    /// Checks that the address may be published (P5), and that the user has consented to its adoption.
    pub(super) fn check(&self, scene: &AdoptionInputs<'_>) -> Result<(), AdoptionRefusal> {
        let refuse = |problem: AdoptionProblem| Err(problem.with(&self.from));
        let object = || self.from.clone();
        let namespace = &scene.registration.key.namespace;
        if let Some((name, _)) = &self.pod {
            let joins = (scene.pod)(name).is_some_and(|pod| {
                let selector = scene.registration.selector.as_ref();
                selector.is_some_and(|selector| selector.matches(&pod.labels))
            });
            return if joins {
                Ok(())
            } else {
                refuse(AdoptionProblem::PodNotSelected(name.clone()))
            };
        }
        if !scene.registration.consent.allows(self.address) {
            let address = self.text.clone();
            return refuse(AdoptionProblem::NoConsent { address, object: object() });
        }
        if let Err(error) =
            address::outside(&self.text.as_str().into(), namespace, scene.ranges, scene.owner_of)
        {
            return refuse(error.into());
        }
        let family = Family::of(self.address);
        if !scene.families.contains(&family) {
            return refuse(AdoptionProblem::OtherFamily {
                address: self.text.clone(),
                family: family.as_str(),
                service: scene.registration.service_name.clone(),
                object: object(),
            });
        }
        Ok(())
    }
}

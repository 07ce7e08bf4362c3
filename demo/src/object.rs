//! The parts of the watched objects that the observer needs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use beatkeeper_api::heartbeat::{CORDONED_ANNOTATION, REGISTRATION_LABEL, instance_of};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

/// The two objects in which clients find an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// All EndpointSlices of the Service, taken together.
    Slices,
    /// The Endpoints of the Service.
    Endpoints,
}

impl Place {
    /// Both objects.
    pub const ALL: [Place; 2] = [Place::Slices, Place::Endpoints];

    /// Returns the name for use in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Place::Slices => "the EndpointSlices",
            Place::Endpoints => "the Endpoints",
        }
    }
}

/// Which watch an object comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Heartbeats.
    Lease,
    /// EndpointSlices.
    Slice,
    /// Endpoints.
    Endpoints,
}

/// The uid and renewTime of a Lease. Any change of the token is a beat.
pub type Token = (String, String);

/// The needed parts of an object.
#[derive(Clone, Debug)]
pub enum Object {
    /// A heartbeat.
    Lease {
        /// Name of the instance.
        instance: String,
        /// What changes with each beat.
        token: Token,
        /// Whether a user has cordoned the instance.
        cordoned: bool,
    },
    /// An EndpointSlice or the Endpoints.
    Published {
        /// The kind of the object.
        place: Place,
        /// Name of the object.
        name: String,
        /// The addresses that are ready in it.
        ready: BTreeSet<IpAddr>,
    },
}

impl Object {
    /// Reads a Lease.
    pub fn lease(lease: &Lease) -> Self {
        let registration = lease.labels().get(REGISTRATION_LABEL).map_or("", String::as_str);
        let name = lease.name_any();
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
        Object::Lease {
            instance: instance_of(&name, registration).unwrap_or(&name).to_owned(),
            token: (
                lease.uid().unwrap_or_default(),
                renewed.map_or_else(String::new, |time| time.0.to_string()),
            ),
            cordoned: lease.annotations().contains_key(CORDONED_ANNOTATION),
        }
    }

    /// Reads an EndpointSlice.
    pub fn slice(slice: &EndpointSlice) -> Self {
        let ready = slice.endpoints.iter().filter(|endpoint| {
            endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
        });
        let ready = ready.flat_map(|endpoint| &endpoint.addresses);
        Object::Published {
            place: Place::Slices,
            name: slice.name_any(),
            ready: ready.filter_map(|address| address.parse().ok()).collect(),
        }
    }

    /// Reads Endpoints.
    pub fn endpoints(endpoints: &Endpoints) -> Self {
        let subsets = endpoints.subsets.iter().flatten();
        let ready = subsets.flat_map(|subset| subset.addresses.iter().flatten());
        Object::Published {
            place: Place::Endpoints,
            name: endpoints.name_any(),
            ready: ready.filter_map(|address| address.ip.parse().ok()).collect(),
        }
    }

    /// Returns the name of the instance, or of the object that lists instances.
    pub fn name(&self) -> String {
        match self {
            Object::Lease { instance, .. } => instance.clone(),
            Object::Published { name, .. } => name.clone(),
        }
    }
}

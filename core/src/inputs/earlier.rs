//! The addresses of outside instances before their registration stalled.

use std::collections::BTreeMap;

use beatkeeper_api::ServiceRegistrationStatus;

use crate::{objects::registration::Registration, vocabulary::address::Named};

/// The addresses of outside instances, by name, before the registration stalled. An edit of `spec.instances` that
/// cannot be applied yet must not hide where an instance still is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Earlier(BTreeMap<String, Vec<Named>>);

impl Earlier {
    /// The addresses that the spec declares.
    pub fn declared(registration: &Registration) -> Self {
        let declared = registration.declared.values().map(|instance| {
            let named = instance.addresses.iter().map(|text| text.as_str().into());
            (instance.name.clone(), named.collect())
        });
        Self(declared.collect())
    }

    /// The addresses that a status lists. After a start, nothing else is known.
    pub fn from_status(status: &ServiceRegistrationStatus) -> Self {
        let told = status.instances.iter().map(|instance| {
            let named = instance.addresses.iter().map(|text| text.as_str().into());
            (instance.name.clone(), named.collect())
        });
        Self(told.collect())
    }

    /// All of the addresses.
    pub fn all(&self) -> impl Iterator<Item = &Named> {
        self.0.values().flatten()
    }

    /// The earlier addresses of an instance.
    pub fn of(&self, instance: &str) -> &[Named] {
        self.0.get(instance).map(Vec::as_slice).unwrap_or_default()
    }
}

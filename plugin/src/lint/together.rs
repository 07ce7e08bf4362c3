//! Registrations that get in each other's way.

use std::collections::BTreeMap;

use beatkeeper_core::vocabulary::key::Key;

use super::{finding::Place, mistake::Mistake, registration::Read};

/// The registrations that were seen so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// By namespace and name: where it is.
    registrations: BTreeMap<Key, String>,
    /// By namespace and Service: the name of the registration.
    services: BTreeMap<Key, String>,
}

impl Seen {
    /// Adds a registration, and returns what is wrong beside those that came before.
    pub fn add(&mut self, read: &Read, place: &Place) -> Option<Mistake> {
        let registration = &read.registration;
        let name = read.object.metadata.name.as_deref().unwrap_or_default();
        let key = registration.key.clone();
        let here = format!("{}:{}", place.file, place.places.line(&read.root));
        if let Some(before) = self.registrations.get(&key) {
            let path = read.root.field("metadata").field("name");
            let what = format!(
                "there is a registration {key} before, in {before}: kubectl applies the last one"
            );
            return Some(Mistake::advice(path, what, "Remove one of them, or rename it"));
        }
        self.registrations.insert(key.clone(), here);
        let service = Key::new(&*key.namespace, &*registration.service_name);
        if let Some(other) = self.services.get(&service) {
            let what = format!(
                "Service {service} is that of registration {other}, too: the older one publishes, and this one is stalled"
            );
            let remedy = "Declare the instances in one registration, or name another Service";
            return Some(Mistake::advice(read.field("serviceName"), what, remedy));
        }
        self.services.insert(service, name.to_owned());
        None
    }
}

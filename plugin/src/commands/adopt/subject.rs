//! The Service that is to be adopted, and the registration for it.

use beatkeeper_api::{
    GROUP, ServiceRegistration, VERSION,
    registration::{ADOPT_ANNOTATION, DRY_RUN_ANNOTATION},
};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use serde_json::{Map, Value, json};

use crate::{
    change::{obstacle::Obstacle, service::Selecting},
    error::Error,
    gather::{
        self,
        scope::{Scope, Wanted},
    },
    model::store::Store,
    session::Session,
};

/// The Service that is to be adopted.
pub(super) struct Subject {
    /// Its name.
    pub(super) name: String,
    /// Its selector, if it has one.
    pub(super) selecting: Option<Selecting>,
    ports: Vec<ServicePort>,
}

impl Subject {
    /// Reads the Service, and sees whether it can be adopted at all.
    ///
    /// # Errors
    /// [`Error`], if it cannot be read, or cannot be adopted.
    pub(super) async fn read(session: &Session, name: &str) -> Result<Self, Error> {
        let namespace = &session.namespace;
        let read = gather::get::<Service>(&session.client, namespace, name).await;
        let doing = || format!("read Service {name} in namespace {namespace}");
        let service = read.map_err(|error| Error::of_request(doing(), &error))?;
        let Some(service) = service else {
            let (namespace, name) = (namespace.clone(), name.to_owned());
            return Err(Obstacle::NoService { namespace, name }.into());
        };
        let scope = Scope::Namespace(namespace.clone());
        let wanted = Wanted { scope, ..Wanted::default() };
        let registrations = gather::registrations(session, &wanted, &mut Store::default()).await?;
        check(namespace, name, &service, &registrations)?;
        Ok(Self {
            name: name.to_owned(),
            selecting: Selecting::of(namespace, &service),
            ports: service.spec.and_then(|spec| spec.ports).unwrap_or_default(),
        })
    }

    /// The registration, in a dry run. It selects the Pods that the Service selects, or has the consent to take over
    /// what people have written.
    pub(super) fn manifest(&self, ttl: Option<&str>, interval: Option<&str>) -> Value {
        let mut spec = Map::new();
        let mut annotations = json!({ DRY_RUN_ANNOTATION: "true" });
        for (field, value) in [("ttl", ttl), ("interval", interval)] {
            spec.extend(value.map(|value| (field.to_owned(), json!(value))));
        }
        spec.insert("ports".to_owned(), self.ports.iter().map(port).collect());
        match &self.selecting {
            Some(selecting) => {
                let labels = json!({ "matchLabels": selecting.selector });
                spec.insert("podSelector".to_owned(), labels);
            }
            None => annotations[ADOPT_ANNOTATION] = "true".into(),
        }
        json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "ServiceRegistration",
            "metadata": { "name": self.name, "annotations": annotations },
            "spec": spec,
        })
    }
}

fn port(port: &ServicePort) -> Value {
    let mut fields = json!({ "port": port.port });
    if let Some(name) = &port.name {
        fields["name"] = json!(name);
    }
    if let Some(target) = &port.target_port {
        fields["targetPort"] = json!(target);
    }
    if let Some(protocol) = &port.protocol {
        fields["protocol"] = json!(protocol);
    }
    if let Some(protocol) = &port.app_protocol {
        fields["appProtocol"] = json!(protocol);
    }
    fields
}

/// Whether a Service can be adopted, by what it says itself and by the registrations of its namespace.
fn check(
    namespace: &str,
    name: &str,
    service: &Service,
    registrations: &[ServiceRegistration],
) -> Result<(), Obstacle> {
    let spec = service.spec.clone().unwrap_or_default();
    let refuse = |field, problem: &str, remedy: &str| {
        let (name, problem, remedy) = (name.to_owned(), problem.to_owned(), remedy.to_owned());
        Err(Obstacle::NotAdoptable { name, field, problem, remedy })
    };
    if service.metadata.deletion_timestamp.is_some() {
        let problem = "is set: it is being deleted";
        return refuse("metadata.deletionTimestamp", problem, "Create it again first.");
    }
    if spec.type_.as_deref() == Some("ExternalName") {
        let problem = "is ExternalName, which has no endpoints";
        return refuse(
            "spec.type",
            problem,
            "Name another Service, or give it the type ClusterIP.",
        );
    }
    if spec.ports.as_ref().is_none_or(Vec::is_empty) {
        let problem = "is empty, and a registration needs a port";
        return refuse(
            "spec.ports",
            problem,
            "Give the Service the port on which its instances listen.",
        );
    }
    let is = |it: &&ServiceRegistration| it.metadata.name.as_deref() == Some(name);
    let publishes = registrations.iter().find(|it| it.service_name() == name);
    let (found, has) = match (publishes, registrations.iter().find(is)) {
        (Some(found), _) => (found, "publishes it"),
        (None, Some(found)) => (found, "has its name"),
        (None, None) => return Ok(()),
    };
    Err(Obstacle::AlreadyRegistered {
        namespace: namespace.to_owned(),
        service: name.to_owned(),
        registration: found.metadata.name.clone().unwrap_or_default(),
        has,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({ "metadata": { "name": "web" }, "spec": spec })).unwrap()
    }

    fn subject(spec: Value) -> Subject {
        let service = service(spec);
        Subject {
            name: "web".to_owned(),
            selecting: Selecting::of("shop", &service),
            ports: service.spec.unwrap().ports.unwrap(),
        }
    }

    fn refused(spec: Value, registrations: &[ServiceRegistration]) -> String {
        check("shop", "web", &service(spec), registrations).unwrap_err().to_string()
    }

    #[test]
    fn a_registration_selects_what_the_service_selected_and_has_its_ports() {
        let ports = json!([{ "name": "http", "port": 80, "targetPort": "web", "protocol": "TCP", "appProtocol": "https" }]);
        let spec = json!({ "selector": { "app": "web" }, "ports": ports });
        assert_eq!(
            subject(spec).manifest(Some("30s"), None),
            json!({
                "apiVersion": "beatkeeper.dev/v1alpha1", "kind": "ServiceRegistration",
                "metadata": { "name": "web", "annotations": { "beatkeeper.dev/dry-run": "true" } },
                "spec": {
                    "ttl": "30s", "ports": ports,
                    "podSelector": { "matchLabels": { "app": "web" } },
                },
            })
        );
    }

    #[test]
    fn hand_written_endpoints_are_taken_over_only_with_the_annotation() {
        let manifest = subject(json!({ "ports": [{ "port": 80 }] })).manifest(None, Some("5s"));
        assert_eq!(
            manifest["metadata"]["annotations"],
            json!({ "beatkeeper.dev/dry-run": "true", "beatkeeper.dev/adopt": "true" })
        );
        assert_eq!(manifest["spec"], json!({ "interval": "5s", "ports": [{ "port": 80 }] }));
    }

    #[test]
    fn what_prevents_an_adoption_is_told_with_its_field_and_a_remedy() {
        assert_eq!(
            refused(json!({ "type": "ExternalName", "externalName": "example.org" }), &[]),
            "Service web cannot be adopted: spec.type is ExternalName, which has no endpoints\n\
             Name another Service, or give it the type ClusterIP."
        );
        let none = refused(json!({ "clusterIP": "None" }), &[]);
        assert!(none.starts_with("Service web cannot be adopted: spec.ports is empty"), "{none}");
    }

    #[test]
    fn a_service_has_one_registration_only() {
        let registration = |name: &str, service: Option<&str>| {
            let mut registration = ServiceRegistration::new(name, Default::default());
            registration.spec.service_name = service.map(str::to_owned);
            registration
        };
        let spec = || json!({ "ports": [{ "port": 80 }] });
        let other = registration("other", None);
        assert!(check("shop", "web", &service(spec()), std::slice::from_ref(&other)).is_ok());
        assert_eq!(
            refused(spec(), &[other, registration("front", Some("web"))]),
            "Service web cannot be adopted: ServiceRegistration front publishes it already\n\
             See what it does: kubectl beatkeeper -n shop get front"
        );
        let named = refused(spec(), &[registration("web", Some("front"))]);
        assert!(named.contains("ServiceRegistration web has its name already"), "{named}");
    }
}

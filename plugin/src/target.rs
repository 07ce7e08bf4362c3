//! The instance that a command is about.

use std::fmt;

use beatkeeper_api::{
    ServiceRegistration,
    heartbeat::{self, REGISTRATION_LABEL},
};

use crate::{
    error::Error,
    flags::ConnectionFlags,
    gather::{
        self,
        scope::{Scope, Wanted},
    },
    model::{
        assemble, finding::named, instance::Instance, lease::SeenLease,
        registration::RegistrationView, store::Store,
    },
    session::Session,
};

/// A registration and one of its instances, as they are written on the command line: NAME/INSTANCE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The name of the registration.
    pub registration: String,
    /// The name of the instance.
    pub instance: String,
}

/// What `kubectl get leases -o name` prints before the name of a Lease.
const LEASE: &str = "lease.coordination.k8s.io";

/// The registration of a target, and all that belongs to it.
#[derive(Debug)]
pub struct Found {
    /// What was read.
    pub store: Store,
    /// The registration as it was read.
    pub object: ServiceRegistration,
    /// The registration with its instances.
    pub view: RegistrationView,
}

/// Connects to the cluster, and reads the registration of NAME/INSTANCE and all that belongs to it. The text may also be a
/// Lease of an instance, as kubectl prints its name.
///
/// # Errors
/// [`Error`], if the text names no instance, the cluster cannot be reached, or there is no such registration.
pub async fn open(
    text: &str,
    connection: &ConnectionFlags,
) -> Result<(Target, Session, Found), Error> {
    let given = Target::read(text)?;
    let session = Session::open(connection).await?;
    let target = given.resolve(&session).await?;
    let found = target.find(&session).await?;
    Ok((target, session, found))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registration, self.instance)
    }
}

impl Target {
    /// Reads NAME/INSTANCE.
    ///
    /// # Errors
    /// [`Error::Usage`], if there is no instance in it.
    fn read(text: &str) -> Result<Self, Error> {
        match text.split_once('/') {
            Some((registration, instance)) if !registration.is_empty() && !instance.is_empty() => {
                Ok(Self { registration: registration.to_owned(), instance: instance.to_owned() })
            }
            _ => Err(Error::Usage(format!(
                "{text:?} names no instance; write NAME/INSTANCE, such as {}/vm-1",
                text.trim_matches('/')
            ))),
        }
    }

    /// The instance whose Lease is named, if that is what was written.
    async fn resolve(self, session: &Session) -> Result<Self, Error> {
        if self.registration != LEASE {
            return Ok(self);
        }
        let (namespace, lease) = (session.namespace.clone(), self.instance);
        let doing = format!("read Lease {lease} in namespace {namespace}");
        let read = gather::lease(&session.client, &namespace, &lease).await;
        let read = read.map_err(|error| Error::of_request(doing, &error))?;
        let target = read.and_then(|read| {
            let registration = read.heartbeat.registration?;
            let instance = heartbeat::instance_of(&lease, &registration)?.to_owned();
            Some(Self { registration, instance })
        });
        target.ok_or(Error::NoHeartbeat { namespace, lease })
    }

    /// Reads the registration and all that belongs to it.
    ///
    /// # Errors
    /// [`Error`], if it cannot be read, or there is none of this name.
    async fn find(&self, session: &Session) -> Result<Found, Error> {
        let scope = Scope::Namespace(session.namespace.clone());
        let wanted = Wanted { scope, name: Some(self.registration.clone()), labels: None };
        let store = gather::gather(session, &wanted).await?;
        let Some(object) = store.registrations.values().next().cloned() else {
            return Err(Error::NoRegistration {
                namespace: session.namespace.clone(),
                name: self.registration.clone(),
                others: Vec::new(),
            });
        };
        let view = assemble::registration(&store, &object, session.clock.now());
        Ok(Found { store, object, view })
    }

    /// The name of the Lease of the instance.
    pub fn lease_name(&self) -> String {
        heartbeat::lease_name(&self.registration, &self.instance)
    }

    /// Reads the Lease of the instance; `None` if there is none, or if it is no heartbeat of the registration.
    ///
    /// # Errors
    /// [`Error`], if it cannot be read.
    pub async fn lease(&self, session: &Session) -> Result<Option<SeenLease>, Error> {
        let name = self.lease_name();
        let doing = format!("read Lease {name} in namespace {}", session.namespace);
        let lease = gather::lease(&session.client, &session.namespace, &name).await;
        let lease = lease.map_err(|error| Error::of_request(doing, &error))?;
        Ok(lease.filter(|lease| {
            lease.heartbeat.registration.as_deref() == Some(&*self.registration)
                && !lease.heartbeat.content.deleting
        }))
    }
}

impl Found {
    /// The instance.
    ///
    /// # Errors
    /// [`Error::NoInstance`], which says what there is instead.
    pub async fn instance(&self, target: &Target, session: &Session) -> Result<&Instance, Error> {
        match self.view.instance(&target.instance) {
            Some(instance) => Ok(instance),
            None => Err(unknown(session, &self.view, target).await),
        }
    }
}

/// Why there is no instance of this name: perhaps its Lease lacks the label.
pub async fn unknown(session: &Session, view: &RegistrationView, target: &Target) -> Error {
    let lease = target.lease_name();
    let found = gather::lease(&session.client, &view.key.namespace, &lease).await;
    let hint = match found {
        Ok(Some(_)) => format!(
            "Lease {lease} exists, but its label {REGISTRATION_LABEL} is not {name}, so it is no heartbeat of it.\n\
             Set it with: kubectl -n {namespace} label --overwrite lease {lease} {REGISTRATION_LABEL}={name}",
            name = view.key.name,
            namespace = view.key.namespace,
        ),
        _ if view.instances.is_empty() => {
            format!(
                "It has no instances: nothing beats for it. An instance beats by its Lease, here {lease}."
            )
        }
        _ => format!("It has: {}", named(view.instances.iter().map(|it| it.name.as_str()))),
    };
    let instance = target.instance.clone();
    Error::NoInstance { registration: view.key.to_string(), instance, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_what_follows_the_first_slash() {
        let target = Target::read("orders/adopted/192.0.2.21").unwrap();
        assert_eq!((&*target.registration, &*target.instance), ("orders", "adopted/192.0.2.21"));
        for wrong in ["greeter", "greeter/", "/vm-1", "/", ""] {
            assert!(Target::read(wrong).is_err(), "{wrong}");
        }
    }
}

//! Reads from the API server what belongs to registrations: all of it, in pages, and not only what a status lists.

pub mod check;
pub mod election;
pub mod events;
pub mod explained;
pub mod follow;
pub mod gateways;
pub mod rights;
pub mod scope;
pub mod watch;

use beatkeeper::kube_client::list::Collection;
use beatkeeper_api::{ServiceRegistration, heartbeat::REGISTRATION_LABEL};
use beatkeeper_core::{
    objects::{
        decode::{self, Decode, Lenient, Unreadable},
        heartbeat::Origin,
        marks::SERVICE_NAME_LABEL,
    },
    vocabulary::key::Key,
};
use futures::join;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        coordination::v1::Lease,
        core::v1::{Endpoints, Pod, Service},
        discovery::v1::EndpointSlice,
    },
};
use kube::{Api, Client, Resource, api::GetParams, core::Request};
use serde::de::DeserializeOwned;

use crate::{
    error::{Error, Problem},
    model::{kind::Kind, lease::SeenLease, store::Store},
    session::Session,
};
use scope::{Scope, Wanted};

/// Reads the wanted registrations and all that belongs to them. What cannot be read, except for the registrations, is
/// noted in the store.
///
/// # Errors
/// [`Error`], if the registrations cannot be read, or there is none of the wanted name.
pub async fn gather(session: &Session, wanted: &Wanted) -> Result<Store, Error> {
    let mut store = Store::default();
    let registrations = match &wanted.name {
        Some(name) => vec![one(session, &wanted.scope, name).await?],
        None => registrations(session, wanted, &mut store).await?,
    };
    let keyed = registrations.into_iter().map(|object| (Key::of(&object.metadata), object));
    store.registrations = keyed.collect();
    if !store.registrations.is_empty() {
        belongings(session, wanted, &mut store).await;
    }
    Ok(store)
}

/// Reads one Lease by its name, whether it has the label of a heartbeat or not.
///
/// # Errors
/// If it cannot be read.
pub async fn lease(
    client: &Client,
    namespace: &str,
    name: &str,
) -> kube::Result<Option<SeenLease>> {
    let path = Lease::url_path(&(), Some(namespace));
    let request = Request::new(path).get(name, &GetParams::default());
    let read = match client.request_text(request.map_err(kube::Error::BuildRequest)?).await {
        Ok(text) => decode::read(text.as_bytes()),
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(read.ok())
}

/// Reads one registration.
///
/// # Errors
/// [`Error`], if it cannot be read, or there is none of this name.
pub async fn one(
    session: &Session,
    scope: &Scope,
    name: &str,
) -> Result<ServiceRegistration, Error> {
    let namespace = scope.namespace().unwrap_or(&session.namespace);
    let doing = format!("read ServiceRegistration {name} in namespace {namespace}");
    let found = get::<ServiceRegistration>(&session.client, namespace, name).await;
    if let Some(found) = found.map_err(|error| Error::of_request(doing, &error))? {
        return Ok(found);
    }
    let wanted = Wanted { scope: Scope::Namespace(namespace.to_owned()), ..Wanted::default() };
    let others = registrations(session, &wanted, &mut Store::default()).await?;
    let names = others.into_iter().filter_map(|other| other.metadata.name).collect();
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    Err(Error::NoRegistration { namespace, name, others: names })
}

/// Reads all wanted registrations. Those that cannot be read are noted in the store.
///
/// # Errors
/// [`Error`], if the list cannot be read.
pub async fn registrations(
    session: &Session,
    wanted: &Wanted,
    store: &mut Store,
) -> Result<Vec<ServiceRegistration>, Error> {
    let collection = wanted.scope.collection::<ServiceRegistration>(&session.client);
    let collection = match &wanted.labels {
        Some(labels) => collection.labelled(labels),
        None => collection,
    };
    let listed = all::<ServiceRegistration>(&collection).await;
    let doing = || format!("list ServiceRegistrations in {}", wanted.scope);
    let listed = listed.map_err(|error| Error::of_request(doing(), &error))?;
    Ok(listed.into(store))
}

/// Reads all that belongs to the registrations of the store.
async fn belongings(session: &Session, wanted: &Wanted, store: &mut Store) {
    let client = &session.client;
    let names = Names::of(wanted, store);
    let (leases, slices, services, endpoints) = join!(
        leases(client, wanted),
        slices(client, wanted, names.service()),
        named::<Service>(client, wanted, names.service()),
        named::<Endpoints>(client, wanted, names.service()),
    );
    for lease in read(leases, Kind::Lease, store) {
        store.put_lease(lease);
    }
    for slice in read(slices, Kind::EndpointSlice, store) {
        store.put_slice(slice);
    }
    for service in read(services, Kind::Service, store) {
        store.services.insert(Key::of(&service.metadata), service);
    }
    for object in read(endpoints, Kind::Endpoints, store) {
        store.endpoints.insert(Key::of(&object.metadata), object);
    }
    if needs_pods(store) {
        let pods = all::<Pod>(&wanted.scope.collection::<Pod>(client)).await;
        for pod in read(pods, Kind::Pod, store) {
            store.put_pod(&pod);
        }
    }
}

/// The name of the Service, if only one registration is wanted.
struct Names {
    service: Option<String>,
}

impl Names {
    fn of(wanted: &Wanted, store: &Store) -> Self {
        let one = wanted.name.as_ref().and_then(|_| store.registrations.values().next());
        Self { service: one.map(|object| object.service_name().to_owned()) }
    }

    fn service(&self) -> Option<&str> {
        self.service.as_deref()
    }
}

/// Whether some instance runs in a Pod.
fn needs_pods(store: &Store) -> bool {
    let leases = store.leases.values().flat_map(|leases| leases.values());
    let mut origins = leases.map(|lease| &lease.heartbeat.content.origin);
    let of_pod = |object: &ServiceRegistration| object.spec.pod_selector.is_some();
    origins.any(|origin| matches!(origin, Origin::Pod { .. }))
        || store.registrations.values().any(of_pod)
}

/// The collection of heartbeat Leases of the wanted registrations.
pub fn lease_collection(client: &Client, wanted: &Wanted) -> Collection {
    let selector = match &wanted.name {
        Some(name) => format!("{REGISTRATION_LABEL}={name}"),
        None => REGISTRATION_LABEL.to_owned(),
    };
    wanted.scope.collection::<Lease>(client).labelled(&selector)
}

/// The collection of slices of a Service, or of all Services.
pub fn slice_collection(client: &Client, wanted: &Wanted, service: Option<&str>) -> Collection {
    let selector = match service {
        Some(service) => format!("{SERVICE_NAME_LABEL}={service}"),
        None => SERVICE_NAME_LABEL.to_owned(),
    };
    wanted.scope.collection::<EndpointSlice>(client).labelled(&selector)
}

async fn leases(client: &Client, wanted: &Wanted) -> kube::Result<Listed<SeenLease>> {
    all::<SeenLease>(&lease_collection(client, wanted)).await
}

async fn slices(
    client: &Client,
    wanted: &Wanted,
    service: Option<&str>,
) -> kube::Result<Listed<EndpointSlice>> {
    all(&slice_collection(client, wanted, service)).await
}

/// One object by its name, or all.
async fn named<K>(client: &Client, wanted: &Wanted, name: Option<&str>) -> kube::Result<Listed<K>>
where
    K: Decode + Object,
{
    match (name, wanted.scope.namespace()) {
        (Some(name), Some(namespace)) => {
            let found = get::<K>(client, namespace, name).await?;
            Ok(Listed { objects: found.into_iter().collect(), unreadable: Vec::new() })
        }
        _ => all::<K>(&wanted.scope.collection::<K>(client)).await,
    }
}

/// What an object is that kube's client can read.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug
{
}

/// One object by its name; `None` if there is none.
///
/// # Errors
/// If it cannot be read.
pub async fn get<K>(client: &Client, namespace: &str, name: &str) -> kube::Result<Option<K>>
where
    K: Decode + Object,
    Lenient<K>: DeserializeOwned,
{
    let api: Api<Lenient<K>> = Api::namespaced(client.clone(), namespace);
    Ok(api.get_opt(name).await?.map(|Lenient(object)| object))
}

/// The objects of a list, and those that cannot be read.
struct Listed<K> {
    objects: Vec<K>,
    /// Their names, and why.
    unreadable: Vec<(String, String)>,
}

impl<K> Listed<K> {
    /// The objects. Those that cannot be read are noted.
    fn into(self, store: &mut Store) -> Vec<K> {
        for (what, why) in self.unreadable {
            store.note_unread(what, why);
        }
        self.objects
    }
}

async fn all<K: Decode>(collection: &Collection) -> kube::Result<Listed<K>> {
    let mut listed = Listed { objects: Vec::new(), unreadable: Vec::new() };
    let take = |object| match object {
        Ok(object) => listed.objects.push(object),
        Err(unreadable) => {
            let unreadable: Box<Unreadable> = unreadable;
            let what = format!("{} {}", unreadable.kind, unreadable.key);
            listed.unreadable.push((what, unreadable.why));
        }
    };
    collection.each(take).await?;
    Ok(listed)
}

fn read<K>(listed: kube::Result<Listed<K>>, kind: Kind, store: &mut Store) -> Vec<K> {
    match listed {
        Ok(listed) => listed.into(store),
        Err(error) => {
            store.note_unread(kind.as_str(), Problem::of(&error).brief());
            Vec::new()
        }
    }
}

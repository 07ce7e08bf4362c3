//! Reads what belongs into the bundle, and adds each object as it comes.

use std::collections::BTreeSet;

use beatkeeper::kube_client::list::Collection;
use beatkeeper_api::{ServiceRegistration, heartbeat::REGISTRATION_LABEL};
use beatkeeper_core::objects::marks::SERVICE_NAME_LABEL;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Endpoints, Event, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{Client, Resource};
use serde_json::Value;

use super::{
    archive::{Archive, safe},
    contents::Contents,
    kinds::{self, Kept, Kind},
};
use crate::{
    error::{Error, Problem},
    gather::scope::Scope,
    session::Session,
};

/// A bundle that is being filled.
pub struct Bundle<'a> {
    /// The connection.
    pub session: &'a Session,
    /// Where its objects are.
    pub archive: Archive,
    /// What is in it.
    pub contents: Contents,
}

/// What belongs to registrations, by names alone: a list of objects would have no bound.
#[derive(Default)]
struct Wanted {
    /// The Services, by namespace and name.
    services: BTreeSet<(String, String)>,
    /// The selectors of Pods, by namespace.
    pods: BTreeSet<(String, String)>,
}

impl Bundle<'_> {
    /// Adds a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, folder: &str, name: &str, contents: &[u8]) -> Result<(), Error> {
        let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        // Two registrations may select the same Pod, which may be the operator's, too.
        if !self.contents.is_new(&path) {
            return Ok(());
        }
        self.archive.add(&path, contents).map_err(Error::Bundle)?;
        self.contents.note(if folder.is_empty() { name } else { folder });
        Ok(())
    }

    /// Adds a document as JSON.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add_document(&mut self, folder: &str, name: &str, value: &Value) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(value).map_err(|error| Error::Bundle(error.into()))?;
        self.add(folder, name, &text)
    }

    /// Adds an object.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add_object<K: Kind>(&mut self, object: &Kept<K>) -> Result<(), Error> {
        let folder = match object.namespace() {
            "" => format!("objects/{}", K::PLURAL),
            namespace => format!("objects/{}/{}", safe(namespace), K::PLURAL),
        };
        let name = format!("{}.json", safe(object.name()));
        self.add_document(&folder, &name, &object.value)
    }

    /// Adds the objects of a collection that are wanted. What cannot be read is noted.
    ///
    /// # Errors
    /// If the archive cannot be written.
    pub async fn add_all<K: Kind>(
        &mut self,
        collection: Collection,
        what: &str,
        mut wanted: impl FnMut(&Kept<K>) -> bool,
    ) -> Result<(), Error> {
        let mut written = Ok(());
        let take = |object: Result<Kept<K>, _>| match object {
            Ok(object) if written.is_ok() && wanted(&object) => written = self.add_object(&object),
            Ok(_) => {}
            Err(unreadable) => {
                let unreadable: Box<beatkeeper_core::objects::decode::Unreadable> = unreadable;
                let what = format!("{} {}", unreadable.kind, unreadable.key);
                self.contents.fail(&what, &unreadable.why);
            }
        };
        let listed = collection.each(take).await;
        if let Err(error) = listed {
            self.contents.fail(what, &Problem::of(&error).brief());
        }
        written
    }

    /// Adds registrations and what belongs to them.
    ///
    /// # Errors
    /// If the archive cannot be written.
    pub async fn add_registrations(&mut self, scope: &Scope) -> Result<(), Error> {
        let client = &self.session.client.clone();
        let mut wanted = Wanted::default();
        let all = scope.collection::<ServiceRegistration>(client);
        let what = format!("ServiceRegistrations in {scope}");
        let note = |object: &Kept<kinds::ServiceRegistration>| {
            wanted.note(object);
            true
        };
        self.add_all(all, &what, note).await?;
        let leases = scope.collection::<Lease>(client).labelled(REGISTRATION_LABEL);
        let what = format!("heartbeat Leases in {scope}");
        self.add_all::<kinds::Lease>(leases, &what, |_| true).await?;
        self.add_published(scope, client, &wanted).await?;
        for (namespace, selector) in &wanted.pods {
            let pods = Collection::of::<Pod>(client, Some(namespace)).labelled(selector);
            let what = format!("Pods in namespace {namespace}");
            self.add_all::<kinds::Pod>(pods, &what, |_| true).await?;
        }
        let events = scope.collection::<Event>(client);
        let what = format!("events in {scope}");
        self.add_all::<kinds::Event>(events, &what, |event| {
            event.value["involvedObject"]["kind"] == "ServiceRegistration"
        })
        .await
    }

    async fn add_published(
        &mut self,
        scope: &Scope,
        client: &Client,
        wanted: &Wanted,
    ) -> Result<(), Error> {
        let services = scope.collection::<Service>(client);
        let what = format!("Services in {scope}");
        self.add_all::<kinds::Service>(services, &what, |it| wanted.has(it, it.name())).await?;
        let slices = scope.collection::<EndpointSlice>(client).labelled(SERVICE_NAME_LABEL);
        let what = format!("EndpointSlices in {scope}");
        self.add_all::<kinds::EndpointSlice>(slices, &what, |it| {
            wanted.has(it, it.label(SERVICE_NAME_LABEL).unwrap_or_default())
        })
        .await?;
        let endpoints = scope.collection::<Endpoints>(client);
        let what = format!("Endpoints in {scope}");
        self.add_all::<kinds::Endpoints>(endpoints, &what, |it| wanted.has(it, it.name())).await
    }

    /// Adds the definition of registrations.
    ///
    /// # Errors
    /// If the archive cannot be written.
    pub async fn add_definition(&mut self) -> Result<(), Error> {
        let name = format!("serviceregistrations.{}", beatkeeper_api::GROUP);
        let path = format!("{}/{name}", CustomResourceDefinition::url_path(&(), None));
        let what = format!("CustomResourceDefinition {name}");
        let Some(text) = self.read(&path, &what).await else { return Ok(()) };
        match beatkeeper_core::objects::decode::read::<Kept<kinds::CustomResourceDefinition>>(
            text.as_bytes(),
        ) {
            Ok(object) => self.add_object(&object),
            Err(unreadable) => {
                self.contents.fail(&what, &unreadable.why);
                Ok(())
            }
        }
    }

    /// The versions of the plugin and of the API server.
    ///
    /// # Errors
    /// If the archive cannot be written.
    pub async fn add_versions(&mut self) -> Result<(), Error> {
        let server = self.read("/version", "version of the API server").await;
        let server = server.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let versions = serde_json::json!({
            "plugin": env!("CARGO_PKG_VERSION"),
            "api": format!("{}/{}", beatkeeper_api::GROUP, beatkeeper_api::VERSION),
            "apiServer": server,
            "time": self.session.clock.now().to_string(),
            "clockAheadSeconds": self.session.clock.ahead().as_secs(),
        });
        self.add_document("", "versions.json", &versions)
    }

    /// What the API server answers to a path; `None` if it cannot be read, which is noted.
    pub async fn read(&mut self, path: &str, what: &str) -> Option<String> {
        let request = http::Request::get(path).body(Vec::new()).ok()?;
        match self.session.client.request_text(request).await {
            Ok(text) => Some(text),
            Err(error) => {
                self.contents.fail(what, &Problem::of(&error).brief());
                None
            }
        }
    }

    /// Adds what could not be read and what there is, and puts the archive in its place. Returns its size in bytes.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> Result<(Contents, u64), Error> {
        let errors: String =
            self.contents.errors().iter().map(|line| format!("{line}\n")).collect();
        self.add("", "errors.txt", errors.as_bytes())?;
        let table = self.contents.table();
        self.archive.add("contents.txt", table.as_bytes()).map_err(Error::Bundle)?;
        let size = self.archive.finish().map_err(Error::Bundle)?;
        Ok((self.contents, size))
    }
}

impl Wanted {
    fn note(&mut self, object: &Kept<kinds::ServiceRegistration>) {
        let spec = &object.value["spec"];
        let namespace = object.namespace().to_owned();
        let service = spec["serviceName"].as_str().unwrap_or(object.name()).to_owned();
        let selector = serde_json::from_value::<LabelSelector>(spec["podSelector"].clone());
        if let Ok(selector) = selector
            && let Ok(selector) = kube::core::Selector::try_from(selector)
        {
            self.pods.insert((namespace.clone(), selector.to_string()));
        }
        self.services.insert((namespace, service));
    }

    fn has<K>(&self, object: &Kept<K>, service: &str) -> bool {
        self.services.contains(&(object.namespace().to_owned(), service.to_owned()))
    }
}

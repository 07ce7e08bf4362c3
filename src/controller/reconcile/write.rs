//! Writes one object of a plan, and makes the result known to the next plan.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Resource,
    api::{DeleteParams, PostParams, Preconditions},
};
use serde::Serialize;

use crate::{
    controller::{api::ApiServer, cluster::Cluster, error::ApiError, rollback::Rollback},
    kube_client::list::Collection,
};
use beatkeeper_core::plan::write::Write;
use beatkeeper_core::{
    cluster_cache::watched::Watched,
    objects::decode::{Decode, Lenient},
    vocabulary::{key::Key, version::Version},
};

/// The writes that slices and Endpoints have in common.
pub(crate) struct ObjectWriter<'a, K> {
    api: Api<Lenient<K>>,
    namespace: &'a str,
    write: &'a Write,
    server: &'a ApiServer,
    cluster: &'a Cluster,
    rollback: &'a Rollback,
}

/// An object as it was written.
pub(crate) struct Written {
    pub(crate) name: String,
    pub(crate) version: String,
}

impl<'a, K> ObjectWriter<'a, K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Watched
        + Decode
        + Serialize
        + Clone
        + Debug
        + Send
        + Sync,
{
    pub(crate) fn new(
        namespace: &'a str,
        write: &'a Write,
        server: &'a ApiServer,
        cluster: &'a Cluster,
        rollback: &'a Rollback,
    ) -> Self {
        let api = Api::namespaced(server.client.clone(), namespace);
        Self { api, namespace, write, server, cluster, rollback }
    }

    pub(crate) async fn create(&self, object: &K) -> Result<Option<Written>, ApiError> {
        let result = self
            .server
            .write(
                || self.doing(),
                self.api.create(&PostParams::default(), &Lenient(object.clone())),
            )
            .await;
        // A creation is planned from the state in which the object does not exist.
        let name = Resource::meta(object).name.as_deref();
        self.note(result, name, Version(0)).await
    }

    pub(crate) async fn replace(&self, object: &K) -> Result<Option<Written>, ApiError> {
        let metadata = Resource::meta(object);
        let name = metadata.name.as_deref().unwrap_or_default();
        let from = Version::of(metadata.resource_version.as_deref());
        let (params, wanted) = (PostParams::default(), Lenient(object.clone()));
        let result =
            self.server.write(|| self.doing(), self.api.replace(name, &params, &wanted)).await;
        self.note(result, Some(name), from).await
    }

    pub(crate) async fn delete(
        &self,
        name: &str,
        uid: &str,
        resource_version: &str,
    ) -> Result<Option<Written>, ApiError> {
        let exactly = DeleteParams::default().preconditions(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: Some(resource_version.to_owned()),
        });
        let from = Version::of(Some(resource_version));
        let objects = Collection::of::<K>(&self.server.client, Some(self.namespace));
        match self.server.write(|| self.doing(), objects.delete(name, &exactly)).await {
            Ok(()) => {
                self.cluster.lock().remove_own::<K>(&Key::new(self.namespace, name), from);
                Ok(None)
            }
            Err(error) => self.note(Err(error), Some(name), from).await,
        }
    }

    /// Makes the result known to the next plan. This is the object as it was written or, after a conflict, as
    /// it is read now. If that read fails, the watch brings the object.
    async fn note(
        &self,
        result: Result<Lenient<K>, ApiError>,
        name: Option<&str>,
        from: Version,
    ) -> Result<Option<Written>, ApiError> {
        match result {
            Ok(Lenient(object)) => {
                let metadata = Resource::meta(&object);
                let named = metadata.name.clone().zip(metadata.resource_version.clone());
                let written = named.map(|(name, version)| Written { name, version });
                self.cluster.lock().put_own(object);
                Ok(written)
            }
            Err(error) => {
                if error.is_conflict()
                    && let Some(name) = name
                {
                    if from != Version(0) || !error.is_absent() {
                        let key = Key::new(self.namespace, name);
                        self.cluster.lock().refused::<K>(&key, from);
                    }
                    self.read_again(name, from).await;
                }
                Err(error)
            }
        }
    }

    async fn read_again(&self, name: &str, from: Version) {
        let read =
            self.server.read(|| format!("read {name}, to plan again"), self.api.get(name)).await;
        match read {
            Ok(Lenient(object)) => self.rollback.put_read(object, from),
            Err(error) if error.is_absent() => {
                self.cluster.lock().remove_own::<K>(&Key::new(self.namespace, name), from);
            }
            Err(_) => {}
        }
    }

    fn doing(&self) -> String {
        format!("{} in namespace {}", self.write, self.namespace)
    }
}

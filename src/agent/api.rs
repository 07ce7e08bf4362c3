//! The requests of one instance: each bounded in time, each failure named.

use std::time::Duration;

use beatkeeper_api::ServiceRegistration;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::Value;

use super::failure::{Cause, Failure, Operation};
use super::lease::Identity;
use crate::kube_client::within;

pub(super) struct Requests {
    leases: Api<Lease>,
    pods: Api<Pod>,
    registrations: Api<ServiceRegistration>,
    namespace: String,
    registration: String,
    lease: String,
}

impl Requests {
    pub(super) fn new(client: Client, identity: &Identity) -> Self {
        let namespace = &identity.namespace;
        Self {
            leases: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
            registrations: Api::namespaced(client, namespace),
            namespace: namespace.clone(),
            registration: identity.registration.clone(),
            lease: identity.lease_name(),
        }
    }

    /// `namespace/name`, as messages name objects.
    fn object(&self, name: &str) -> String {
        format!("{}/{name}", self.namespace)
    }

    pub(super) fn lease_object(&self) -> String {
        self.object(&self.lease)
    }

    pub(super) fn registration_object(&self) -> String {
        self.object(&self.registration)
    }

    pub(super) async fn registration(
        &self,
        limit: Duration,
    ) -> Result<ServiceRegistration, Failure> {
        let call = self.registrations.get(&self.registration);
        bounded(Operation::ReadRegistration, &self.registration_object(), limit, call).await
    }

    pub(super) async fn pod_uid(&self, name: &str, limit: Duration) -> Result<String, Failure> {
        let object = self.object(name);
        let pod = bounded(Operation::ReadPod, &object, limit, self.pods.get(name)).await?;
        pod.uid().ok_or_else(|| Failure::found(Operation::ReadPod, &object, Cause::Other))
    }

    pub(super) async fn lease(&self, limit: Duration) -> Result<Option<Lease>, Failure> {
        let call = self.leases.get_opt(&self.lease);
        bounded(Operation::ReadLease, &self.lease_object(), limit, call).await
    }

    pub(super) async fn create(&self, lease: &Lease, limit: Duration) -> Result<Lease, Failure> {
        let parameters = PostParams::default();
        let call = self.leases.create(&parameters, lease);
        bounded(Operation::CreateLease, &self.lease_object(), limit, call).await
    }

    pub(super) async fn patch(
        &self,
        operation: Operation,
        patch: &Value,
        limit: Duration,
    ) -> Result<Lease, Failure> {
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        let call = self.leases.patch(&self.lease, &parameters, &patch);
        bounded(operation, &self.lease_object(), limit, call).await
    }

    /// Deletes the Lease if it is still the one with this uid. False: it is gone, or another's.
    pub(super) async fn delete(
        &self,
        operation: Operation,
        uid: &str,
        limit: Duration,
    ) -> Result<bool, Failure> {
        let uid = Some(uid.to_owned());
        let parameters =
            DeleteParams::default().preconditions(Preconditions { uid, resource_version: None });
        let call = self.leases.delete(&self.lease, &parameters);
        match bounded(operation, &self.lease_object(), limit, call).await {
            Ok(_) => Ok(true),
            Err(failure) if matches!(failure.cause, Cause::Missing | Cause::Conflict) => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}

async fn bounded<T>(
    operation: Operation,
    object: &str,
    limit: Duration,
    call: impl Future<Output = kube::Result<T>> + Send,
) -> Result<T, Failure> {
    match within(limit, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Failure::of(operation, object, &error)),
        Err(error) => Err(Failure::timeout(operation, object, error)),
    }
}

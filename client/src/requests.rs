//! The requests of one instance: each has a time limit, and each failure names its operation and object.

use std::time::Duration;

use beatkeeper_api::{ServiceRegistration, beats::BeatLease};
use http::{Request, header::CONTENT_TYPE};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde::de::IgnoredAny;

use crate::failure::{Cause, Failure, Operation};
use crate::gateway::Gateway;
use crate::headers::Headers;
use crate::lease::{Identity, LeasePatch};
use crate::reading::Read;
use crate::timeout::within;

/// The timeout of a request that is sent before the ttl is known.
pub(super) const TIMEOUT_UNKNOWN: Duration = Duration::from_secs(10);

/// A client, and the values from the headers of its answers.
#[derive(Clone)]
pub struct Connection {
    /// The client of the API server.
    pub client: Client,
    /// The values from the headers of the answers that this client received.
    pub headers: Headers,
    /// The connection to gateways, if there are any. All instances of a process share it.
    pub gateway: Option<Gateway>,
}

pub(super) struct Requests {
    leases: Api<Read<Lease>>,
    pods: Api<Read<Pod>>,
    registrations: Api<Read<ServiceRegistration>>,
    namespace: String,
    registration: String,
    lease: String,
    headers: Headers,
    gateway: Option<Gateway>,
    /// The field manager under which the API server records our writes; `None`: the one that the User-Agent
    /// gives.
    manager: Option<&'static str>,
}

impl Requests {
    pub(super) fn new(connection: Connection, identity: &Identity) -> Self {
        let Connection { client, headers, gateway } = connection;
        let namespace = &identity.namespace;
        Self {
            leases: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
            registrations: Api::namespaced(client, namespace),
            namespace: namespace.clone(),
            registration: identity.registration.clone(),
            lease: identity.lease_name(),
            headers,
            gateway,
            manager: None,
        }
    }

    /// Returns the same requests, recorded under another field manager.
    pub(super) fn written_by(self, manager: &'static str) -> Self {
        Self { manager: Some(manager), ..self }
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

    /// The connection to gateways, if there are any.
    pub(super) fn gateway(&self) -> Option<&Gateway> {
        self.gateway.as_ref()
    }

    /// Names the Lease to a gateway.
    pub(super) fn beat_lease(&self) -> BeatLease {
        BeatLease { namespace: self.namespace.clone(), name: self.lease.clone() }
    }

    pub(super) async fn registration(
        &self,
        limit: Duration,
    ) -> Result<ServiceRegistration, Failure> {
        let call = self.registrations.get(&self.registration);
        let object = self.registration_object();
        self.object_of(Operation::ReadRegistration, &object, limit, call).await
    }

    pub(super) async fn pod_uid(&self, name: &str, limit: Duration) -> Result<String, Failure> {
        let object = self.object(name);
        let pod = self.object_of(Operation::ReadPod, &object, limit, self.pods.get(name)).await?;
        pod.uid().ok_or_else(|| Failure::found(Operation::ReadPod, &object, Cause::Other))
    }

    pub(super) async fn lease(&self, limit: Duration) -> Result<Option<Lease>, Failure> {
        let call = self.leases.get_opt(&self.lease);
        let found = self.bounded(Operation::ReadLease, &self.lease_object(), limit, call).await?;
        Ok(found.map(|Read(lease)| lease))
    }

    pub(super) async fn create(&self, lease: &Lease, limit: Duration) -> Result<Lease, Failure> {
        let (parameters, lease) = (PostParams::default(), Read(lease.clone()));
        let call = self.leases.create(&parameters, &lease);
        self.object_of(Operation::CreateLease, &self.lease_object(), limit, call).await
    }

    pub(super) async fn patch(
        &self,
        operation: Operation,
        patch: &LeasePatch,
        limit: Duration,
    ) -> Result<Lease, Failure> {
        let object = self.lease_object();
        match patch {
            LeasePatch::Merge(patch) => {
                let field_manager = self.manager.map(str::to_owned);
                let parameters = PatchParams { field_manager, ..PatchParams::default() };
                let patch = Patch::Merge(patch);
                let call = self.leases.patch(&self.lease, &parameters, &patch);
                self.object_of(operation, &object, limit, call).await
            }
            LeasePatch::Json(operations) => {
                let request =
                    Request::patch(format!("{}/{}", self.leases.resource_url(), self.lease))
                        .header(CONTENT_TYPE, "application/json-patch+json")
                        .body(operations.to_string().into_bytes())
                        .map_err(|_| Failure::found(operation, &object, Cause::Other))?;
                let client = self.leases.clone().into_client();
                self.object_of(operation, &object, limit, client.request(request)).await
            }
        }
    }

    /// Deletes the Lease if it is still the given one, and otherwise fails with a conflict. Returns false if
    /// the Lease is gone.
    pub(super) async fn delete(
        &self,
        operation: Operation,
        that: Preconditions,
        limit: Duration,
    ) -> Result<bool, Failure> {
        let parameters = DeleteParams::default().preconditions(that);
        let object = self.lease_object();
        let request = kube::core::Request::new(self.leases.resource_url());
        let request = request
            .delete(&self.lease, &parameters)
            .map_err(|_| Failure::found(operation, &object, Cause::Other))?;
        let client = self.leases.clone().into_client();
        // The answer may be the whole Lease, and nothing of it is used.
        let call = client.request::<IgnoredAny>(request);
        match self.bounded(operation, &object, limit, call).await {
            Ok(IgnoredAny) => Ok(true),
            Err(failure) if failure.cause == Cause::Missing => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// By how many seconds our wall clock is ahead of the server's.
    pub(super) fn clock_ahead(&self) -> Option<i64> {
        self.headers.ahead()
    }

    async fn object_of<K>(
        &self,
        operation: Operation,
        object: &str,
        limit: Duration,
        call: impl Future<Output = kube::Result<Read<K>>> + Send,
    ) -> Result<K, Failure> {
        self.bounded(operation, object, limit, call).await.map(|Read(object)| object)
    }

    async fn bounded<T>(
        &self,
        operation: Operation,
        object: &str,
        limit: Duration,
        call: impl Future<Output = kube::Result<T>> + Send,
    ) -> Result<T, Failure> {
        match within(limit, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let mut failure = Failure::of(operation, object, &error);
                if matches!(error, kube::Error::Api(_)) {
                    failure.retry_after = self.headers.retry_after().or(failure.retry_after);
                }
                Err(failure)
            }
            Err(error) => Err(Failure::timeout(operation, object, error)),
        }
    }
}

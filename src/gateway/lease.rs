//! The gateway's own Lease (G4). Replicas of the operator find the gateway by it, and see by its renewals that the
//! gateway lives although a stream to it is broken.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use beatkeeper_api::{
    gateway::{
        CERTIFICATE_ANNOTATION, GATEWAY_LABEL, GATEWAY_LEASE_PREFIX, Lifetime, STREAMS_ANNOTATION,
    },
    heartbeat::renew_time,
};
use beatkeeper_gateway::{run::Certificates, validity::Validity};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{
        ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions,
    },
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::place::Place;

/// How often the Lease is renewed.
const EVERY: Duration = Duration::from_secs(2);
/// How long after its last renewal a gateway counts as dead.
const DURATION_SECONDS: u32 = 10;
/// How long the API server may take for an answer.
const WITHIN: Duration = Duration::from_secs(2);

/// The Lease could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeaseError {
    #[error("the API server: {0}")]
    Kube(#[from] kube::Error),
    #[error("the API server has not answered within {WITHIN:?}")]
    Late,
}

impl LeaseError {
    fn is_absent(&self) -> bool {
        matches!(self, Self::Kube(kube::Error::Api(status)) if status.code == 404)
    }
}

/// The Lease of this gateway.
pub(super) struct GatewayLease {
    api: Api<DynamicObject>,
    name: String,
    namespace: String,
    /// What it says, but for the time of the renewal and the certificates.
    content: Content,
    certificates: Certificates,
}

/// What a Lease of a gateway says.
struct Content {
    holder: String,
    operator: String,
    streams: SocketAddr,
    /// The name of the Pod that owns it.
    owner: Option<String>,
}

impl GatewayLease {
    /// The Lease of the gateway at this place. `operator` is the name of the election's Lease of its operator, `streams`
    /// is where replicas dial, and `certificates` are those that the gateway shows.
    pub(super) fn new(
        client: Client,
        place: &Place,
        operator: &str,
        streams: SocketAddr,
        certificates: Certificates,
    ) -> Self {
        let resource = ApiResource::erase::<Lease>(&());
        Self {
            // Whatever others have written into it must not stop the renewals, so it is read without types.
            api: Api::namespaced_with(client, &place.namespace, &resource),
            name: format!("{GATEWAY_LEASE_PREFIX}{}", place.name),
            namespace: place.namespace.clone(),
            content: Content {
                holder: place.uid.clone(),
                operator: operator.to_owned(),
                streams,
                owner: place.in_pod.then(|| place.name.clone()),
            },
            certificates,
        }
    }

    /// Renews the Lease until `over` is cancelled. A renewal that is under way is awaited: it could reach the API server
    /// after the deletion, and put the Lease back.
    pub(super) async fn keep(&self, over: &CancellationToken) {
        let mut failing = false;
        while !over.is_cancelled() {
            let result = self.renew().await;
            let (name, namespace) = (&self.name, &self.namespace);
            match &result {
                Err(error) if !failing => tracing::warn!(
                    %error,
                    "cannot renew the gateway's Lease {namespace}/{name}: replicas may not find this gateway"
                ),
                Err(error) => {
                    tracing::debug!(%error, "still cannot renew Lease {namespace}/{name}")
                }
                Ok(()) if failing => {
                    tracing::info!("the Lease {namespace}/{name} is renewed again")
                }
                Ok(()) => {}
            }
            failing = result.is_err();
            over.run_until_cancelled(sleep(EVERY)).await;
        }
    }

    /// Renews it. Every renewal writes the whole content: a Pod of the same name may have left its Lease behind.
    async fn renew(&self) -> Result<(), LeaseError> {
        let lifetime = self.certificates.first_to_expire().map(lifetime);
        let content = self.content.json(Timestamp::now(), lifetime);
        let patch = Patch::Merge(&content);
        match within(self.api.patch(&self.name, &PatchParams::default(), &patch)).await {
            Err(error) if error.is_absent() => self.create(content).await,
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    async fn create(&self, mut content: Value) -> Result<(), LeaseError> {
        content["apiVersion"] = "coordination.k8s.io/v1".into();
        content["kind"] = "Lease".into();
        content["metadata"]["name"] = self.name.as_str().into();
        let lease: DynamicObject =
            serde_json::from_value(content).map_err(kube::Error::SerdeError)?;
        within(self.api.create(&PostParams::default(), &lease)).await?;
        Ok(())
    }

    /// Deletes it, if it is still this gateway's. From then on replicas do not look for the gateway.
    pub(super) async fn delete(&self) {
        if let Err(error) = self.try_delete().await
            && !error.is_absent()
        {
            let (name, namespace) = (&self.name, &self.namespace);
            tracing::warn!(%error, "the Lease {namespace}/{name} stays until its Pod is deleted");
        }
    }

    async fn try_delete(&self) -> Result<(), LeaseError> {
        let found = within(self.api.get(&self.name)).await?;
        if found.data["spec"]["holderIdentity"] != self.content.holder {
            return Ok(());
        }
        let this = Preconditions { uid: found.metadata.uid, resource_version: None };
        let only_this = DeleteParams { preconditions: Some(this), ..DeleteParams::default() };
        within(self.api.delete(&self.name, &only_this)).await?;
        Ok(())
    }
}

impl Content {
    fn json(&self, now: Timestamp, lifetime: Option<Lifetime>) -> Value {
        let mut annotations = BTreeMap::from([(STREAMS_ANNOTATION, self.streams.to_string())]);
        annotations.extend(lifetime.map(|it| (CERTIFICATE_ANNOTATION, it.to_string())));
        let owners: Vec<Value> = self.owner.iter().map(|pod| self.owner_reference(pod)).collect();
        json!({
            "metadata": {
                "labels": BTreeMap::from([(GATEWAY_LABEL, &self.operator)]),
                "annotations": annotations,
                "ownerReferences": owners,
            },
            "spec": {
                "holderIdentity": self.holder,
                "leaseDurationSeconds": DURATION_SECONDS,
                "renewTime": renew_time(now),
            },
        })
    }

    fn owner_reference(&self, pod: &str) -> Value {
        json!({ "apiVersion": "v1", "kind": "Pod", "name": pod, "uid": self.holder })
    }
}

/// A time that is too late for a [`Timestamp`] says that the certificate never expires.
fn lifetime(Validity { from, until }: Validity) -> Lifetime {
    Lifetime {
        from: Timestamp::from_second(from).unwrap_or(Timestamp::MIN),
        until: Timestamp::from_second(until).unwrap_or(Timestamp::MAX),
    }
}

async fn within<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, LeaseError> {
    Ok(timeout(WITHIN, call).await.map_err(|_| LeaseError::Late)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_never_expires_is_told_as_the_last_time_that_can_be_written() {
        // 2026-01-01, and the last second of the year 9999.
        let told = lifetime(Validity { from: 1_767_225_600, until: 253_402_300_799 });
        assert_eq!(told.from.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(told.until, Timestamp::MAX);
    }
}

//! The election's Lease, as it is read and written at the API server.

use std::{collections::BTreeSet, time::Duration};

use beatkeeper_api::{
    explain::EXPLAIN_ANNOTATION, gateway::GATEWAYS_ANNOTATION, heartbeat::renew_time,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::controller::{
    call::call_within,
    clock::Clock,
    error::ApiError,
    leader::{args::ElectionSettings, gateway_list},
};
use beatkeeper_core::{
    carriers::frames::Incarnation,
    objects::decode::Lenient,
    replica::leader::{Draft, LeaderLease},
};

/// What a write has left.
pub(crate) struct Written {
    /// The fields of the election.
    pub(crate) lease: LeaderLease,
    /// The annotation that lists gateways, which may hold anything.
    pub(crate) gateways: Option<String>,
}

impl Written {
    /// Whether the Lease lists these gateways, and no others.
    pub(crate) fn lists(&self, gateways: &BTreeSet<Incarnation>) -> bool {
        let listed = self.gateways.as_deref().map(gateway_list::parse);
        listed.is_some_and(|listed| listed.is_ok_and(|listed| listed == *gateways))
    }
}

/// The Lease.
#[derive(Clone)]
pub(crate) struct ElectionLease {
    /// Read leniently, like heartbeats: times that the operator's types cannot hold must not stop the election.
    pub(crate) api: Api<Lenient<DynamicObject>>,
    pub(crate) name: String,
    clock: Clock,
    /// The timeout of a request.
    limit: Duration,
}

impl ElectionLease {
    /// The Lease that the settings name, in this namespace.
    pub(crate) fn new(
        client: &Client,
        namespace: &str,
        settings: &ElectionSettings,
        clock: Clock,
    ) -> Self {
        let resource = ApiResource::erase::<Lease>(&());
        Self {
            api: Api::namespaced_with(client.clone(), namespace, &resource),
            name: settings.name.clone(),
            clock,
            limit: settings.durations.request_timeout(),
        }
    }

    /// Reads the Lease; None if there is none. The answer is not older than the request: it comes from a quorum of etcd,
    /// because the request names no version.
    pub(crate) async fn read(&self) -> Result<Option<LeaderLease>, ApiError> {
        let doing = || format!("read the election's Lease {}", self.name);
        let lease = call_within(self.limit, doing, self.api.get_opt(&self.name)).await?;
        Ok(lease.as_ref().map(|Lenient(lease)| view(lease)))
    }

    /// Writes the Lease, on the condition that it still is what the draft replaces. `told` is what readers learn of the
    /// leader. A list of gateways that is not given stays as it is.
    pub(crate) async fn write(
        &self,
        draft: &Draft,
        told: Option<&str>,
        list: Option<&BTreeSet<Incarnation>>,
    ) -> Result<Written, ApiError> {
        let doing = || format!("write the election's Lease {}", self.name);
        let now = renew_time(self.clock.wall());
        let mut spec = json!({
            "holderIdentity": draft.holder,
            "leaseDurationSeconds": draft.seconds,
            "leaseTransitions": draft.transitions,
            "renewTime": now,
        });
        if draft.acquires {
            spec["acquireTime"] = json!(now);
        }
        // Without an endpoint, that of an earlier leader is removed.
        let mut annotations = json!({ EXPLAIN_ANNOTATION: told });
        if let Some(list) = list {
            annotations[GATEWAYS_ANNOTATION] = json!(gateway_list::render(list));
        }
        let Lenient(written) = if let Some(version) = &draft.replaces {
            let metadata = json!({ "resourceVersion": version, "annotations": annotations });
            let patch = json!({ "metadata": metadata, "spec": spec });
            let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
            call_within(self.limit, doing, self.api.patch(&self.name, &params, &patch)).await?
        } else {
            let mut lease = DynamicObject::new(&self.name, &ApiResource::erase::<Lease>(&()));
            lease.data = json!({ "spec": spec });
            // A Lease that is created begins a term, and a list is written only in a term that has begun.
            let annotation = |told: &str| [(EXPLAIN_ANNOTATION.to_owned(), told.to_owned())].into();
            lease.metadata.annotations = told.map(annotation);
            let params = PostParams::default();
            call_within(self.limit, doing, self.api.create(&params, &Lenient(lease))).await?
        };
        let annotations = written.metadata.annotations.as_ref();
        let gateways = annotations.and_then(|all| all.get(GATEWAYS_ANNOTATION)).cloned();
        Ok(Written { lease: view(&written), gateways })
    }
}

/// The fields of a Lease that the election uses. Other fields are ignored.
pub(crate) fn view(lease: &DynamicObject) -> LeaderLease {
    let spec = &lease.data["spec"];
    let seconds = spec["leaseDurationSeconds"].as_u64().unwrap_or_default();
    LeaderLease {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec["holderIdentity"].as_str().unwrap_or_default().to_owned(),
        duration: Duration::from_secs(seconds),
        transitions: spec["leaseTransitions"]
            .as_i64()
            .and_then(|transitions| i32::try_from(transitions).ok())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn lease(spec: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": "beatkeeper", "resourceVersion": "7" },
            "spec": spec,
        }))
        .expect("a Lease")
    }

    #[test]
    fn a_lease_is_read_whatever_is_missing_or_cannot_be_understood() {
        let nothing = LeaderLease {
            version: "7".to_owned(),
            holder: String::new(),
            duration: Duration::ZERO,
            transitions: 0,
        };
        assert_eq!(view(&lease(json!(null))), nothing);
        assert_eq!(view(&lease(json!({ "leaseDurationSeconds": -3 }))), nothing);
        let full = json!({
            "holderIdentity": "replica-0_1a2b", "leaseDurationSeconds": 15, "leaseTransitions": 4,
            "renewTime": "9999-12-31T23:59:59.999999Z",
        });
        let view = view(&lease(full));
        assert_eq!((view.holder.as_str(), view.transitions), ("replica-0_1a2b", 4));
        assert_eq!(view.duration, Duration::from_secs(15));
    }
}

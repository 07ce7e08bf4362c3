//! The slices of a service with a kept plan, of which one endpoint after the other goes.

use std::net::IpAddr;
use std::sync::Arc;

use beatkeeper_core::cluster_cache::ClusterCache;
use beatkeeper_core::decide::{kept::KeptDecision, verdict::Verdict};
use beatkeeper_core::inputs::{Inputs, snapshot};
use beatkeeper_core::objects::{registration::Registration, service::ServiceView};
use beatkeeper_core::plan::{
    build::{self, PlanPremise, PlanSettings},
    change_limits::{EndpointLimiter, Permits},
    endpoint_conflicts,
    kept::{KeptPlan, Since},
    target::DEFAULT_MAX_ENDPOINTS_PER_SLICE,
    write::{Plan, Write},
};
use beatkeeper_core::vocabulary::monotonic_time::MonotonicTime;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::instances::NAMESPACE;

const STYLE: PlanSettings = PlanSettings {
    publish_endpoints: true,
    max_endpoints_per_slice: DEFAULT_MAX_ENDPOINTS_PER_SLICE,
};

/// The published objects of a service. They stay as they are: no write of a plan arrives.
pub struct Slices {
    inputs: Inputs,
    kept: KeptPlan,
    limiter: EndpointLimiter,
}

impl Slices {
    /// Publishes what was decided.
    pub fn of(registration: &Registration, verdicts: &[Verdict]) -> Self {
        let service = serde_json::from_value(json!({
            "metadata": { "name": "service", "namespace": NAMESPACE, "uid": "uid" },
            "spec": { "ipFamilies": ["IPv4"] },
        }));
        let service = ServiceView::of(&service.expect("a Service"));
        let snapshot = snapshot::take(registration, &ClusterCache::default());
        let mut inputs = Inputs::new(snapshot, Some(Arc::new(service)), None);
        let plan = build::build(registration, &inputs, verdicts, STYLE, Timestamp::UNIX_EPOCH);
        for (n, write) in plan.phases.into_iter().flatten().enumerate() {
            match write {
                Write::CreateSlice(mut slice) => {
                    stored(&mut slice.metadata, format!("service-{n:05}"));
                    inputs.snapshot.slices.push(Arc::new(slice));
                }
                Write::CreateEndpoints(mut endpoints) => {
                    stored(&mut endpoints.metadata, "service".to_owned());
                    inputs.snapshot.endpoints = Some(Arc::new(endpoints));
                }
                _ => panic!("there is nothing to update or delete"),
            }
        }
        let premise = PlanPremise::of(registration, &inputs, STYLE);
        let published = &inputs.snapshot;
        let kept = KeptPlan::after(premise, &published.slices, published.endpoints.as_ref(), true);
        Self { inputs, kept, limiter: EndpointLimiter::default() }
    }

    /// Plans for what has changed.
    pub fn plan(&mut self, decision: &mut KeptDecision, now: MonotonicTime) -> Plan {
        let mut permits = Permits::default();
        let since = Since {
            slices: &self.inputs.snapshot.slices,
            endpoints: self.inputs.snapshot.endpoints.as_ref(),
            touched: decision.take_touched(),
            wall: Timestamp::UNIX_EPOCH,
        };
        let wanted_at = |addresses: &std::collections::BTreeSet<IpAddr>| {
            endpoint_conflicts::endpoints(decision.claims_at(addresses), false)
        };
        let limiter = &mut self.limiter;
        let restrain =
            |endpoints, slices: &[_]| limiter.limit(endpoints, slices, &mut permits, now);
        self.kept.plan(since, wanted_at, restrain).expect("no instance joins").slices
    }
}

/// Adds what the API server adds.
fn stored(metadata: &mut ObjectMeta, name: String) {
    metadata.name = Some(name);
    metadata.uid = Some("uid".to_owned());
    metadata.resource_version = Some("1".to_owned());
}

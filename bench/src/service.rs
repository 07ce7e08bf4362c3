//! One service with all inputs of a decision and of a plan.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use beatkeeper_core::decide::evidence::Evidence;
use beatkeeper_core::decide::verdict::Verdict;
use beatkeeper_core::decide::{
    decide,
    facts::{self, Facts},
};
use beatkeeper_core::liveness::index::{CommitResult, Index, Record};
use beatkeeper_core::liveness::ttl::TtlHistory;
use beatkeeper_core::objects::registration::Registration;
use beatkeeper_core::vocabulary::address::{AddressSet, OutsideRanges};
use beatkeeper_core::vocabulary::endpoint::{
    Conditions, Endpoint, EndpointPort, EndpointsReadiness, Family, PortSet, Protocol,
};
use beatkeeper_core::vocabulary::key::Key;
use beatkeeper_core::vocabulary::monotonic_time::MonotonicTime;
use beatkeeper_core::{
    objects::marks::Owner,
    plan::{
        diff::plan,
        target::{EndpointsMode, Published, ServiceFacts, Target},
        write::{Plan, Write},
    },
};
use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use crate::instances::{Instances, NAMESPACE, Size, address, service_key};

/// A registration, with all other inputs of its decisions except the instances.
pub struct Inputs {
    registration: Registration,
    ttl: TtlHistory,
    ranges: OutsideRanges,
    evidence: Evidence,
}

impl Inputs {
    /// Makes inputs with this ttl and interval, in which the path of the beats works.
    pub fn new(key: &Key, ttl: &str, interval: &str) -> Self {
        let object = serde_json::from_value(json!({
            "apiVersion": "beatkeeper.dev/v1alpha1",
            "kind": "ServiceRegistration",
            "metadata": { "name": key.name, "namespace": key.namespace, "uid": "uid" },
            "spec": {
                "ttl": ttl, "interval": interval,
                "ports": [{ "name": "grpc", "port": 80, "targetPort": 8080 }],
            },
        }));
        let registration = Registration::validate(&object.expect("a ServiceRegistration"));
        let range = format!("{NAMESPACE}=10.0.0.0/8").parse().expect("a range");
        // As if a probe was proven at every moment.
        let probed = Some(MonotonicTime::from_millis(u64::MAX));
        Self {
            ttl: TtlHistory::new(registration.ttl),
            ranges: [range].into_iter().collect(),
            evidence: Evidence { probed, ..Evidence::default() },
            registration,
        }
    }

    /// Returns the registration.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Returns the namespace and name of the registration.
    pub fn key(&self) -> &Key {
        &self.registration.key
    }

    /// Decides about the instances of the registration.
    pub fn decide(
        &self,
        records: &[Record],
        published: &AddressSet,
        now: MonotonicTime,
    ) -> Vec<Verdict> {
        self.with_facts(records, published, now, decide)
    }

    /// Tells the index what was decided, as if it were written at once.
    pub fn commit(&self, index: &mut Index, verdicts: &[Verdict], now: MonotonicTime) {
        let decisions = verdicts.iter().filter_map(Verdict::lease_decision);
        let result = index.commit(self.key(), decisions, now);
        assert_eq!(result, CommitResult::Accepted, "no beat comes in between");
    }

    /// Asks the core about the instances of the registration.
    pub fn with_facts<T>(
        &self,
        records: &[Record],
        published: &AddressSet,
        now: MonotonicTime,
        ask: impl FnOnce(&Facts<'_>) -> T,
    ) -> T {
        ask(&Facts {
            registration: &self.registration,
            instances: facts::Instances { records, adopted: &[], cordons: &[] },
            liveness: facts::Liveness {
                ttl: &self.ttl,
                evidence: &self.evidence,
                unreadable: &HashMap::new(),
                term_began: MonotonicTime::from_millis(0),
            },
            service: facts::TargetService {
                name: &self.registration.service_name,
                families: &[Family::V4],
                ports: &self.registration.ports,
                shared_ports: OnceCell::new(),
            },
            published: facts::PublishedNow {
                addresses: published,
                contains: &|_, _| true,
                frozen: None,
            },
            cluster: facts::Cluster {
                pods: &HashMap::new(),
                zones: &HashMap::new(),
                ranges: &self.ranges,
                owner_of: &|_| None,
            },
            now,
        })
    }
}

/// A service of instances outside the cluster, which are all published.
pub struct Decisions {
    inputs: Inputs,
    records: Vec<Record>,
    published: AddressSet,
}

impl Decisions {
    /// Makes a service with `instances` instances.
    pub fn new(instances: usize) -> Self {
        let all = Instances::new(Size { instances, services: 1 });
        let key = service_key(0);
        Self {
            records: all.index.records_of(&key),
            published: (0..instances).map(address).collect(),
            inputs: Inputs::new(&key, "10s", "3s"),
        }
    }

    /// Decides about all instances, `millis` milliseconds after they beat.
    pub fn decide(&self, millis: u64) -> Vec<Verdict> {
        self.inputs.decide(&self.records, &self.published, MonotonicTime::from_millis(2 + millis))
    }
}

/// Returns the first moment at which time alone may change a decision.
pub fn next_deadline(verdicts: &[Verdict]) -> Option<MonotonicTime> {
    verdicts.iter().filter_map(|verdict| verdict.requeue_at).min()
}

/// A service with `endpoints` endpoints in its slices.
pub struct Plans {
    owner: Owner,
    service: ServiceFacts,
    endpoints: Vec<Endpoint>,
    slices: Vec<EndpointSlice>,
    object: Option<Endpoints>,
}

impl Plans {
    /// Makes a service, and publishes all its endpoints.
    pub fn new(endpoints: usize) -> Self {
        let ports = PortSet::new(vec![EndpointPort {
            name: "grpc".to_owned(),
            port: 8080,
            protocol: Protocol::Tcp,
            app_protocol: None,
        }]);
        let endpoint = |n| Endpoint {
            address: address(n),
            ports: ports.clone(),
            conditions: Conditions { ready: true, serving: true, terminating: false },
            hostname: None,
            node_name: None,
            zone: None,
            pod: None,
            in_endpoints: Some(EndpointsReadiness::Ready),
        };
        let mut plans = Self {
            owner: Owner {
                namespace: NAMESPACE.to_owned(),
                name: "service".to_owned(),
                uid: "uid".to_owned(),
            },
            service: ServiceFacts {
                name: "service".to_owned(),
                headless: false,
                families: vec![Family::V4],
            },
            endpoints: (0..endpoints).map(endpoint).collect(),
            slices: Vec::new(),
            object: None,
        };
        plans.publish();
        plans
    }

    /// Applies the writes as the API server does.
    fn publish(&mut self) {
        for (n, write) in self.plan_without(0).phases.into_iter().flatten().enumerate() {
            match write {
                Write::CreateSlice(mut slice) => {
                    slice.metadata.name = Some(format!("service-{n:05}"));
                    slice.metadata.uid = Some(format!("uid-{n}"));
                    slice.metadata.resource_version = Some((n + 1).to_string());
                    self.slices.push(slice);
                }
                Write::CreateEndpoints(mut object) => {
                    object.metadata.uid = Some("uid-of-endpoints".to_owned());
                    object.metadata.resource_version = Some("1".to_owned());
                    self.object = Some(object);
                }
                other => unreachable!("nothing is there to be changed by {other}"),
            }
        }
    }

    /// Returns the plan after the first `dead` endpoints were removed.
    pub fn plan_without(&self, dead: usize) -> Plan {
        let target = Target {
            owner: &self.owner,
            service: &self.service,
            endpoints: self.endpoints[dead..].to_vec(),
            max_endpoints_per_slice: 100,
            trigger_time: None,
            endpoints_object: EndpointsMode::Publish,
            closed: HashSet::new(),
        };
        plan(
            &target,
            Published { slices: self.slices.iter().collect(), endpoints: self.object.as_ref() },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beatkeeper_api::InstanceState;

    #[test]
    fn in_steady_state_all_are_ready_and_the_next_deadline_lies_ahead() {
        let verdicts = Decisions::new(50).decide(1_000);
        assert_eq!(verdicts.len(), 50);
        let ready = |verdict: &Verdict| verdict.state == InstanceState::Ready;
        assert!(verdicts.iter().all(ready), "{:?}", verdicts[0]);
        assert!(next_deadline(&verdicts).unwrap() > MonotonicTime::from_millis(1_002));
    }

    #[test]
    fn nothing_is_written_until_an_instance_dies() {
        let plans = Plans::new(250);
        assert!(plans.plan_without(0).is_empty(), "{}", plans.plan_without(0));
        assert_eq!(plans.slices.len(), 3);
        let writes = plans.plan_without(1).phases.concat().len();
        assert_eq!(writes, 2, "its slice and the Endpoints object: {}", plans.plan_without(1));
    }
}

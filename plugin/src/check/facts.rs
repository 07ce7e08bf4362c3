//! What was read of a cluster. What may not be read is a fact, too.

use std::{collections::BTreeMap, time::Duration};

use beatkeeper_api::ServiceRegistration;
use beatkeeper_core::vocabulary::{address::OutsideRanges, key::Key};
use k8s_openapi::{
    api::{
        admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
        flowcontrol::v1::FlowSchema,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};

use crate::error::Problem;

/// Why something could not be read, such as `deployments.apps is forbidden: …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread(pub String);

impl Unread {
    /// What a failed request means, on one line.
    pub fn of(error: &kube::Error) -> Self {
        Self(Problem::of(error).brief())
    }
}

/// What was read, or why it could not be.
pub type Read<T> = Result<T, Unread>;

/// The facts about an installation.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The CustomResourceDefinition; `None` if there is none.
    pub crd: Read<Option<CustomResourceDefinition>>,
    /// The operator; `None` if there is none.
    pub operator: Read<Option<Operator>>,
    /// The election of a leader; `None` if it has no Lease.
    pub election: Read<Option<Election>>,
    /// How long ago the leader renewed its probe; `None` if it has none.
    pub proof: Read<Option<Duration>>,
    /// The rights that the operator lacks.
    pub lacking: Read<Vec<String>>,
    /// All admission policies of the cluster.
    pub policies: Read<Vec<ValidatingAdmissionPolicy>>,
    /// Their bindings.
    pub bindings: Read<Vec<ValidatingAdmissionPolicyBinding>>,
    /// All flow schemas of the cluster.
    pub flows: Read<Vec<FlowSchema>>,
    /// The names of its priority levels.
    pub levels: Read<Vec<String>>,
    /// All registrations that may be seen.
    pub registrations: Read<Vec<ServiceRegistration>>,
    /// How many heartbeat Leases each registration has.
    pub leases: Read<BTreeMap<Key, usize>>,
    /// How many bytes the API server's store has.
    pub stored: Read<Option<u64>>,
    /// How many it may have, if the user has said it.
    pub quota: Option<u64>,
    /// Whether the leader explains instances, if the operator was told so.
    pub explained: Read<Explained>,
    /// The gateways of the operator.
    pub gateways: Gateways,
}

/// Whether the leader explains instances to this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Explained {
    /// It answers this ServiceAccount.
    Answers(Key),
    /// This Lease of the election does not tell where.
    Unannounced(Key),
    /// It was not asked, or did not answer, and why.
    Silent(String),
}

/// The operator's Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// Namespace and name.
    pub key: Key,
    /// Its ServiceAccount.
    pub account: String,
    /// How many replicas are wanted.
    pub wanted: i32,
    /// How many are available.
    pub available: i32,
    /// The arguments of its container.
    pub args: Vec<String>,
    /// The image of its container.
    pub image: String,
    /// The label `app.kubernetes.io/version`.
    pub version: Option<String>,
}

#[cfg(test)]
impl Operator {
    /// An operator as the chart installs it.
    pub(crate) fn example() -> Self {
        let args = ["controller", "--leader-elect", "--leader-elect-resource-name=beatkeeper"];
        Self {
            key: Key::new("beatkeeper", "beatkeeper"),
            account: "beatkeeper".to_owned(),
            wanted: 2,
            available: 2,
            args: args.map(str::to_owned).to_vec(),
            image: concat!("beatkeeper:", env!("CARGO_PKG_VERSION")).to_owned(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        }
    }
}

impl Operator {
    /// The values of a flag.
    pub fn flag<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.args.iter().filter_map(move |arg| arg.strip_prefix(name)?.strip_prefix('='))
    }

    /// The Lease of its election; `None` if it has no election.
    pub fn election(&self) -> Option<Key> {
        self.args.iter().any(|arg| arg == "--leader-elect").then(|| {
            let name = self.flag("--leader-elect-resource-name").next().unwrap_or("beatkeeper");
            let namespace = self.flag("--leader-elect-resource-namespace").next();
            Key::new(namespace.unwrap_or(&self.key.namespace), name)
        })
    }

    /// The namespaces that it watches; none if it watches all.
    pub fn watched(&self) -> Vec<&str> {
        self.flag("--namespace").collect()
    }

    /// Whether it serves what its leader knows of instances.
    pub fn explains(&self) -> bool {
        self.flag("--explain-bind-address").next().is_some()
    }

    /// Whether it takes beats from gateways.
    pub fn uses_gateways(&self) -> bool {
        self.flag("--gateway-cert-dir").next().is_some()
    }

    /// The ranges that it allows for outside instances.
    pub fn ranges(&self) -> OutsideRanges {
        let ranges = self.flag("--outside-range").filter_map(|text| text.parse().ok());
        let networks = self.flag("--cluster-network").filter_map(|text| text.parse().ok());
        ranges.collect::<OutsideRanges>().without(networks.collect())
    }
}

/// The Lease of an election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Election {
    /// The replica that leads; empty if none does.
    pub holder: String,
    /// Whether it renews its claim.
    pub renews: bool,
}

/// The gateways of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateways {
    /// Their Deployments; the chart makes one.
    pub deployments: Read<Vec<Deployed>>,
    /// Those that have a Lease.
    pub living: Read<Vec<Gateway>>,
    /// The uids of the Pods that the election's Lease lists.
    pub listed: Read<Vec<String>>,
}

impl Gateways {
    /// There are none.
    pub fn none() -> Self {
        Self { deployments: Ok(Vec::new()), living: Ok(Vec::new()), listed: Ok(Vec::new()) }
    }

    /// Nothing is known of them.
    pub fn unread(why: &Unread) -> Self {
        Self { deployments: Err(why.clone()), living: Err(why.clone()), listed: Err(why.clone()) }
    }
}

/// A Deployment of gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// Namespace and name.
    pub key: Key,
    /// How many gateways are wanted.
    pub wanted: i32,
    /// How many are available.
    pub available: i32,
    /// The image of their container.
    pub image: String,
    /// The label `app.kubernetes.io/version`.
    pub version: Option<String>,
}

/// A gateway, by its Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The name of its Pod.
    pub name: String,
    /// The uid of its Pod.
    pub pod: String,
    /// How long ago it renewed its Lease; `None` if it never has.
    pub renewed: Option<Duration>,
    /// How long ago its Lease was created.
    pub age: Duration,
    /// The certificate that expires first; `None` if it does not tell.
    pub certificate: Option<Certificate>,
}

/// How long a certificate lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate {
    /// From its first to its last moment.
    pub life: Duration,
    /// From now on; zero if it has expired.
    pub left: Duration,
}

/// The facts about a cluster before an installation.
#[derive(Debug, Clone)]
pub struct Before {
    /// The version of Kubernetes.
    pub kubernetes: Read<(u32, u32)>,
    /// What the user may not create.
    pub lacking: Read<Vec<String>>,
    /// Whether the cluster serves ValidatingAdmissionPolicies.
    pub serves_policies: Read<bool>,
    /// The operator; `None` if there is none.
    pub operator: Read<Option<Operator>>,
}

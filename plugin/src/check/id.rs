//! The checks. Each has an anchor in `docs/checks.md`.

/// A check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The CRD is installed and served.
    Crd,
    /// The CRD is that of this plugin.
    CrdCurrent,
    /// The operator is installed.
    Operator,
    /// All replicas are available.
    Replicas,
    /// A replica leads.
    Leader,
    /// Beats can arrive.
    Path,
    /// The leader explains instances.
    Explain,
    /// All parts have one version.
    Versions,
    /// The operator has its rights.
    OperatorRights,
    /// The admission policies are there and bound.
    AdmissionPolicy,
    /// Beats have a priority level.
    FlowControl,
    /// Registrations are published.
    Registrations,
    /// Declared addresses are allowed.
    OutsideRanges,
    /// There are not too many beats.
    Beats,
    /// The store has room.
    Store,
    /// There are gateways, and the operator uses them.
    Gateways,
    /// All gateways are available.
    GatewayReplicas,
    /// Gateways renew their Leases.
    GatewayLeases,
    /// The leader has streams to the gateways.
    GatewayStreams,
    /// Gateways and operator have one version.
    GatewayVersions,
    /// The certificates of the gateways last long enough.
    GatewayCertificates,
    /// A policy limits what gateways write.
    GatewayPolicy,
    /// A workload may beat.
    WorkloadRights,
    /// The version of Kubernetes is supported.
    Kubernetes,
    /// You may install.
    InstallRights,
    /// The cluster serves admission policies.
    PolicyApi,
    /// There is no other installation.
    NoOther,
}

/// Where the pages are.
const PAGE: &str = "https://github.com/beatkeeper/beatkeeper/blob/main/docs/checks.md";

impl Check {
    /// All checks.
    pub const ALL: [Self; 27] = [
        Self::Crd,
        Self::CrdCurrent,
        Self::Operator,
        Self::Replicas,
        Self::Leader,
        Self::Path,
        Self::Explain,
        Self::Versions,
        Self::OperatorRights,
        Self::AdmissionPolicy,
        Self::FlowControl,
        Self::Registrations,
        Self::OutsideRanges,
        Self::Beats,
        Self::Store,
        Self::Gateways,
        Self::GatewayReplicas,
        Self::GatewayLeases,
        Self::GatewayStreams,
        Self::GatewayVersions,
        Self::GatewayCertificates,
        Self::GatewayPolicy,
        Self::WorkloadRights,
        Self::Kubernetes,
        Self::InstallRights,
        Self::PolicyApi,
        Self::NoOther,
    ];

    /// Its name, which is its anchor.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crd => "crd",
            Self::CrdCurrent => "crd-current",
            Self::Operator => "operator",
            Self::Replicas => "replicas",
            Self::Leader => "leader",
            Self::Path => "path",
            Self::Explain => "explain",
            Self::Versions => "versions",
            Self::OperatorRights => "operator-rights",
            Self::AdmissionPolicy => "admission-policy",
            Self::FlowControl => "flow-control",
            Self::Registrations => "registrations",
            Self::OutsideRanges => "outside-ranges",
            Self::Beats => "beats",
            Self::Store => "store",
            Self::Gateways => "gateways",
            Self::GatewayReplicas => "gateway-replicas",
            Self::GatewayLeases => "gateway-leases",
            Self::GatewayStreams => "gateway-streams",
            Self::GatewayVersions => "gateway-versions",
            Self::GatewayCertificates => "gateway-certificates",
            Self::GatewayPolicy => "gateway-policy",
            Self::WorkloadRights => "workload-rights",
            Self::Kubernetes => "kubernetes",
            Self::InstallRights => "install-rights",
            Self::PolicyApi => "policy-api",
            Self::NoOther => "no-other",
        }
    }

    /// What is true if nothing is wrong.
    pub fn claim(self) -> &'static str {
        match self {
            Self::Crd => "the CRD is installed and served",
            Self::CrdCurrent => "the CRD is that of this plugin",
            Self::Operator => "the operator is installed",
            Self::Replicas => "all replicas of the operator are available",
            Self::Leader => "a replica leads",
            Self::Path => "beats can arrive",
            Self::Explain => "the leader explains instances",
            Self::Versions => "chart, CRD, operator and plugin have one version",
            Self::OperatorRights => "the operator has its rights",
            Self::AdmissionPolicy => "the admission policies are bound",
            Self::FlowControl => "beats have a priority level of their own",
            Self::Registrations => "the operator accepts all registrations",
            Self::OutsideRanges => "declared addresses are in allowed ranges",
            Self::Beats => "the API server has room for the beats",
            Self::Store => "the store has room",
            Self::Gateways => "there are gateways, and the operator uses them",
            Self::GatewayReplicas => "all gateways are available",
            Self::GatewayLeases => "all gateways renew their Leases",
            Self::GatewayStreams => "the leader hears all gateways",
            Self::GatewayVersions => "gateways and operator have one version",
            Self::GatewayCertificates => "the certificates of the gateways last long enough",
            Self::GatewayPolicy => "gateways may write no Leases but their own",
            Self::WorkloadRights => "this user may beat",
            Self::Kubernetes => "the version of Kubernetes is supported",
            Self::InstallRights => "you may install the chart",
            Self::PolicyApi => "the cluster serves ValidatingAdmissionPolicies",
            Self::NoOther => "there is no other installation",
        }
    }

    /// Where it is explained.
    pub fn link(self) -> String {
        format!("{PAGE}#{}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_has_its_section_in_the_docs_and_each_section_its_check() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/checks.md");
        let page = std::fs::read_to_string(page).unwrap();
        let sections: Vec<&str> =
            page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        let names: Vec<&str> = Check::ALL.iter().map(|check| check.name()).collect();
        assert_eq!(sections, names);
    }
}

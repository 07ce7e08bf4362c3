//! The ports of a registration and of its instances.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::rules;

/// A port of the Service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortSpec {
    /// Name of the port, a DNS label. kube-proxy matches the ports of Services and slices by it. May be empty if
    /// there is only one port.
    #[serde(default)]
    #[schemars(length(max = 63))]
    #[x_kube(validation = rules::port_name())]
    pub name: String,
    /// Port of the Service, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Port of the instances: a number from 1 to 65535, or the name of a container port, which only
    /// Pods have. Default: the same as port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 15))]
    #[x_kube(validation = rules::target_port())]
    pub target_port: Option<IntOrString>,
    /// TCP, UDP or SCTP. Default: TCP.
    #[serde(default = "default_protocol")]
    #[schemars(extend("enum" = ["TCP", "UDP", "SCTP"]))]
    pub protocol: String,
    /// Application protocol, as in a Service, such as https or kubernetes.io/h2c. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    #[x_kube(validation = rules::app_protocol())]
    pub app_protocol: Option<String>,
}

/// A port of one instance that differs from the registration's port of this name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstancePort {
    /// Name of the registration's port. Empty if its only port has no name.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub name: String,
    /// Port on which this instance listens, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

fn default_protocol() -> String {
    "TCP".to_owned()
}

//! The CustomResourceDefinition, as it is installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::ServiceRegistration;

/// The CustomResourceDefinition of ServiceRegistration.
pub fn crd() -> CustomResourceDefinition {
    ServiceRegistration::crd()
}

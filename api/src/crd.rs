//! The CustomResourceDefinition, as it is installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use kube::CustomResourceExt;

use crate::ServiceRegistration;

/// The CustomResourceDefinition of ServiceRegistration.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = ServiceRegistration::crd();
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        if let Some(schema) = schema {
            require_ports(schema);
        }
    }
    crd
}

/// The type lets a spec without ports pass, so that one bad object cannot blind a watch; the schema
/// must not. What serde defaults to, an empty list, would be against minItems, and the API server
/// refuses a definition whose default is against its own rules.
fn require_ports(schema: &mut JSONSchemaProps) {
    let spec = schema.properties.as_mut().and_then(|properties| properties.get_mut("spec"));
    let Some(spec) = spec else { return };
    if let Some(ports) = spec.properties.as_mut().and_then(|all| all.get_mut("ports")) {
        ports.default = None;
        spec.required.get_or_insert_default().push("ports".to_owned());
    }
}

//! Writes of a Service whose selector is removed, and set again.

use std::collections::BTreeMap;

use beatkeeper_core::objects::marks::SKIP_MIRROR_LABEL;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use serde_json::{Value, json};

use super::write::patch_object;
use crate::{error::Error, flags::DryRun};

/// A Service with a selector, as it was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selecting {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid, so that no other Service of this name is changed.
    pub uid: String,
    /// Its selector.
    pub selector: BTreeMap<String, String>,
    /// The label that keeps the cluster from mirroring its Endpoints, if it had one.
    pub skip_mirror: Option<String>,
}

impl Selecting {
    /// The Service, if it has a selector.
    pub fn of(namespace: &str, service: &Service) -> Option<Self> {
        let metadata = &service.metadata;
        let selector = service.spec.as_ref()?.selector.clone().filter(|it| !it.is_empty())?;
        let labels = metadata.labels.as_ref();
        Some(Self {
            namespace: namespace.to_owned(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            selector,
            skip_mirror: labels.and_then(|labels| labels.get(SKIP_MIRROR_LABEL)).cloned(),
        })
    }

    /// Sets the label that keeps the cluster from mirroring the Endpoints. The cluster's controllers copy it to them.
    ///
    /// # Errors
    /// [`Error`] of the API server.
    pub async fn label(&self, client: &Client, dry_run: DryRun) -> Result<(), Error> {
        let labels = json!({ "metadata": { "labels": { SKIP_MIRROR_LABEL: "true" } } });
        self.patch(client, "label", labels, dry_run).await
    }

    /// Removes the selector.
    ///
    /// # Errors
    /// [`Error`] of the API server.
    pub async fn release(&self, client: &Client, dry_run: DryRun) -> Result<(), Error> {
        let patch = json!({ "spec": { "selector": null } });
        self.patch(client, "remove the selector of", patch, dry_run).await
    }

    /// Sets the selector again, and the label as it was.
    ///
    /// # Errors
    /// [`Error`] of the API server.
    pub async fn restore(&self, client: &Client) -> Result<(), Error> {
        self.patch(client, "set the selector again of", self.as_before(), DryRun::None).await
    }

    fn as_before(&self) -> Value {
        json!({
            "metadata": { "labels": { SKIP_MIRROR_LABEL: self.skip_mirror } },
            "spec": { "selector": self.selector },
        })
    }

    /// The command that sets the selector again, and the label as it was.
    pub fn restoring(&self) -> String {
        let Self { namespace, name, .. } = self;
        let patch = self.as_before();
        format!("kubectl -n {namespace} patch service {name} --type=merge -p '{patch}'")
    }

    async fn patch(
        &self,
        client: &Client,
        what: &str,
        mut patch: Value,
        dry_run: DryRun,
    ) -> Result<(), Error> {
        let Self { namespace, name, uid, .. } = self;
        patch["metadata"]["uid"] = uid.as_str().into();
        let patched = patch_object::<Service>(client, namespace, name, patch, dry_run).await;
        patched.map_err(|error| {
            let doing = format!("{what} Service {name} in namespace {namespace}");
            let right = format!("patch for services in namespace {namespace}");
            Error::of_write(doing, right, &error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_goes_back_sets_what_there_was_before() {
        let service = json!({
            "metadata": { "name": "web", "uid": "u" }, "spec": { "selector": { "app": "web" } },
        });
        let service: Service = serde_json::from_value(service).unwrap();
        assert_eq!(
            Selecting::of("shop", &service).unwrap().restoring(),
            "kubectl -n shop patch service web --type=merge -p \
             '{\"metadata\":{\"labels\":{\"endpointslice.kubernetes.io/skip-mirror\":null}},\
             \"spec\":{\"selector\":{\"app\":\"web\"}}}'"
        );
    }

    #[test]
    fn a_service_without_a_selector_is_none() {
        for selector in [json!(null), json!({})] {
            let service =
                json!({ "metadata": { "name": "web" }, "spec": { "selector": selector } });
            let service: Service = serde_json::from_value(service).unwrap();
            assert_eq!(Selecting::of("shop", &service), None);
        }
    }
}

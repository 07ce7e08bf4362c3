//! Ensures that the Service exists: creates it if it does not. A Service of the operator gets the mark of its
//! registration and the ports of the spec.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::controller::{
    api::ApiServer, cluster::Cluster, error::ApiError, rollback::Rollback, states::States,
};
use beatkeeper_core::objects::marks::{self, MANAGER, OWNED_BY_ANNOTATION, OwnerMark};
use beatkeeper_core::{
    objects::{
        decode::Lenient,
        registration::{Registration, TargetPort, text_of},
        service::{ServicePortView, ServiceView},
    },
    plan::change_limits::SERVICES,
    vocabulary::{endpoint::Family, key::Key, monotonic_time::MonotonicTime, version::Version},
};

/// The result of ensuring a Service.
pub(crate) enum Ensured {
    /// The Service is as it must be.
    Unchanged(Arc<ServiceView>),
    /// This process or another client has written the Service, so the state must be gathered again.
    Written(Arc<ServiceView>),
    /// The Service must be changed, but it has been changed too often in a row. The change waits for the rate
    /// limit until this moment.
    RateLimited(Arc<ServiceView>, MonotonicTime),
}

/// Creates and changes the Services of registrations.
pub(crate) struct ServiceEnsurer {
    pub(crate) api: ApiServer,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) states: Arc<States>,
    pub(crate) rollback: Arc<Rollback>,
}

impl ServiceEnsurer {
    /// Creates the Service if it does not exist. Takes over a Service of the operator if its registration is gone.
    /// Updates the ports of a Service of the operator. A Service of another owner is used as it is. Client
    /// required.
    pub(crate) async fn ensure(
        &self,
        registration: &Registration,
        known: Option<Arc<ServiceView>>,
    ) -> Result<Ensured, ApiError> {
        let api = Api::<Lenient<Service>>::namespaced(
            self.api.client.clone(),
            &registration.key.namespace,
        );
        let name = &registration.service_name;
        let key = Key::new(&registration.key.namespace, name);
        let (written, from) = match known {
            None => {
                let service = Lenient(new_service(registration));
                let created = self
                    .api
                    .write(
                        || format!("create Service {}/{name}", registration.key.namespace),
                        api.create(&PostParams::default(), &service),
                    )
                    .await;
                match created {
                    // Another client has created the Service, and the watch has not shown it yet: use the existing
                    // one.
                    Err(error) if error.is_conflict() => {
                        if !error.is_absent() {
                            self.cluster.lock().refused::<Service>(&key, Version(0));
                        }
                        (self.read(&key, &api).await?, Version(0))
                    }
                    created => {
                        tracing::info!(service = name, "created the Service");
                        (created?, Version(0))
                    }
                }
            }
            Some(service) => match self.bring_up_to_date(registration, &service, &api).await {
                None => return Ok(Ensured::Unchanged(service)),
                Some(Err(Change::RateLimited(until))) => {
                    return Ok(Ensured::RateLimited(service, until));
                }
                // Another client has changed the Service since. The next round judges it by its current state.
                Some(Err(Change::Fails(error))) if error.is_conflict() => {
                    let from = Version::of(Some(&service.resource_version));
                    self.cluster.lock().refused::<Service>(&key, from);
                    (self.read(&key, &api).await?, from)
                }
                Some(Err(Change::Fails(error))) => return Err(error),
                Some(Ok(changed)) => (changed, Version(0)),
            },
        };
        let Lenient(written) = written;
        let view = Arc::new(ServiceView::of(&written));
        self.rollback.put_read(written, from);
        Ok(Ensured::Written(view))
    }

    /// Writes the mark of this registration and the ports of the spec to a Service of the operator. All other
    /// fields stay as people have set them. Returns None if both are up to date already, or if the operator does
    /// not own the Service.
    async fn bring_up_to_date(
        &self,
        registration: &Registration,
        service: &ServiceView,
        api: &Api<Lenient<Service>>,
    ) -> Option<Result<Lenient<Service>, Change>> {
        let Registration { key, uid, service_name: name, .. } = registration;
        let ours = self.cluster.lock().owns_service(service, &key.namespace, uid);
        let ports = new_ports(registration, service, ours);
        let marked = service.marked().filter(|marked| marked.namespace.is_some());
        let is_marked = marked.is_some_and(|marked| marked.uid == uid);
        if !ours || (is_marked && ports.is_none()) {
            return None;
        }
        if let Err(until) = self.states.may(key, SERVICES, |limits| &mut limits.services) {
            return Some(Err(Change::RateLimited(until)));
        }
        let mut patch = json!({ "metadata": { "resourceVersion": service.resource_version } });
        if !is_marked {
            match self.marks(registration, service, api).await {
                Ok(metadata) => patch["metadata"] = metadata,
                Err(error) => return Some(Err(Change::Fails(error))),
            }
        }
        if let Some(ports) = ports {
            patch["spec"] = json!({ "ports": ports });
        }
        let doing = || format!("bring Service {}/{name} up to date", key.namespace);
        let patch = Patch::Merge(patch);
        let params = PatchParams::default();
        let patched = self.api.write(doing, api.patch(name, &params, &patch)).await;
        if patched.is_ok() && !is_marked {
            tracing::info!(service = name, "took over the Service");
        }
        Some(patched.map_err(Change::Fails))
    }

    async fn read(
        &self,
        key: &Key,
        api: &Api<Lenient<Service>>,
    ) -> Result<Lenient<Service>, ApiError> {
        self.api.read(|| format!("read Service {key}"), api.get(&key.name)).await
    }

    /// Returns the Service that [`Self::ensure`] would find or create, and the description of the write if there
    /// would be one. The families that the cluster would give to a new Service are unknown. The new Service would
    /// ask for both, so it is treated as one that has both.
    pub(crate) fn dry_run(
        &self,
        registration: &Registration,
        known: Option<Arc<ServiceView>>,
    ) -> (Arc<ServiceView>, Option<String>) {
        let Registration { key, uid, service_name: name, .. } = registration;
        match known {
            None => {
                let families = vec![Family::V4, Family::V6];
                let view = ServiceView { families, ..ServiceView::of(&new_service(registration)) };
                (Arc::new(view), Some(format!("create service {name}")))
            }
            Some(service) => {
                let ours = self.cluster.lock().owns_service(&service, &key.namespace, uid);
                let change = new_ports(registration, &service, ours).is_some();
                let change = change.then(|| format!("change the ports of service {name}"));
                (service, change)
            }
        }
    }

    /// The metadata that marks a Service as this registration's.
    async fn marks(
        &self,
        registration: &Registration,
        service: &ServiceView,
        api: &Api<Lenient<Service>>,
    ) -> Result<serde_json::Value, ApiError> {
        let Registration { key, service_name: name, .. } = registration;
        let mark = mark(registration);
        let annotations = json!({ OWNED_BY_ANNOTATION: mark.value() });
        if service.annotated {
            let version = &service.resource_version;
            return Ok(json!({ "resourceVersion": version, "annotations": annotations }));
        }
        // The Service has the owner reference that an earlier version of the operator wrote. Other owner
        // references, if any, stay.
        let service = self.read(&Key::new(&key.namespace, name), api).await?;
        let current = service.0.metadata;
        Ok(json!({
            "resourceVersion": current.resource_version,
            "annotations": annotations,
            "ownerReferences": marks::remaining_owners(&current),
        }))
    }
}

/// Why a Service is not changed.
enum Change {
    /// The rate limit of its changes is reached until this moment.
    RateLimited(MonotonicTime),
    /// A call to the API server failed.
    Fails(ApiError),
}

/// The ports that a Service of the operator must get, if they differ from its current ones.
fn new_ports(
    registration: &Registration,
    service: &ServiceView,
    ours: bool,
) -> Option<Vec<ServicePort>> {
    let wanted = ports(registration);
    (ours && views(&wanted) != service.ports).then_some(wanted)
}

fn mark(registration: &Registration) -> OwnerMark {
    OwnerMark::on_service(&registration.owner(), &registration.service_name)
}

fn new_service(registration: &Registration) -> Service {
    Service {
        metadata: ObjectMeta {
            name: Some(registration.service_name.clone()),
            namespace: Some(registration.key.namespace.clone()),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned())].into()),
            annotations: Some(
                [(OWNED_BY_ANNOTATION.to_owned(), mark(registration).value().to_owned())].into(),
            ),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            ports: Some(ports(registration)),
            // Asks for both families where the cluster has both, so that instances of either family can be
            // published.
            ip_family_policy: Some("PreferDualStack".to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn ports(registration: &Registration) -> Vec<ServicePort> {
    registration
        .ports
        .iter()
        .map(|port| ServicePort {
            name: Some(port.name.clone()).filter(|name| !name.is_empty()),
            port: port.port.into(),
            protocol: Some(port.protocol.as_str().to_owned()),
            target_port: Some(match &port.target {
                TargetPort::Number(number) => IntOrString::Int((*number).into()),
                TargetPort::Name(name) => IntOrString::String(name.clone()),
            }),
            app_protocol: port.app_protocol.clone(),
            node_port: None,
        })
        .collect()
}

fn views(ports: &[ServicePort]) -> Vec<ServicePortView> {
    ports
        .iter()
        .map(|port| ServicePortView {
            name: port.name.clone().unwrap_or_default(),
            port: port.port,
            protocol: port.protocol.clone().unwrap_or_default(),
            target_port: port.target_port.as_ref().map(text_of).unwrap_or_default(),
            app_protocol: port.app_protocol.clone(),
        })
        .collect()
}

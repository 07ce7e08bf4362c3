//! The establish step: creates the Service if it does not exist. A Service of the operator gets the mark of its
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
    context::{Context, call, call_write},
    error::ApiError,
    rollback,
};
use beatkeeper_core::{
    objects::{
        decode::Lenient,
        marks::{self, MANAGER, OWNED_BY_ANNOTATION, OwnerMark},
        registration::{Registration, TargetPort, text_of},
        service::{ServicePortView, ServiceView},
    },
    plan::change_limits::SERVICES,
    vocabulary::{endpoint::Family, key::Key, version::Version},
};

/// The result of the establish step.
pub(crate) enum Ensured {
    /// The Service is as it must be.
    Unchanged(Arc<ServiceView>),
    /// This process or another client has written the Service, so the state must be snapshot anew.
    Written(Arc<ServiceView>),
    /// The Service must be changed, but it has been changed too often in a row. The change waits for the rate
    /// limit.
    Waits(Arc<ServiceView>),
}

/// Creates the Service if it does not exist. Takes over a Service of the operator if its registration is gone.
/// Updates the ports of a Service of the operator. A Service of another owner is used as it is. Client
/// required.
pub(crate) async fn service(
    registration: &Registration,
    known: Option<Arc<ServiceView>>,
    context: &Context,
) -> Result<Ensured, ApiError> {
    let api =
        Api::<Lenient<Service>>::namespaced(context.client.clone(), &registration.key.namespace);
    let name = &registration.service_name;
    let key = Key::new(&registration.key.namespace, name);
    let (written, from) = match known {
        None => {
            let service = Lenient(new_service(registration));
            let created = call_write(
                context,
                || format!("create Service {}/{name}", registration.key.namespace),
                api.create(&PostParams::default(), &service),
            )
            .await;
            match created {
                // Another client has created the Service, and the watch has not shown it yet: use the existing
                // one.
                Err(error) if error.is_conflict() => {
                    if !error.is_absent() {
                        context.world().refused::<Service>(&key, Version(0));
                    }
                    (read(&key, &api).await?, Version(0))
                }
                created => {
                    tracing::info!(registration = %registration.key, service = name, "created the Service");
                    (created?, Version(0))
                }
            }
        }
        Some(service) => match bring_up_to_date(registration, &service, &api, context).await {
            None => return Ok(Ensured::Unchanged(service)),
            Some(Err(Change::Waits)) => return Ok(Ensured::Waits(service)),
            // Another client has changed the Service since. The next round judges it by its current state.
            Some(Err(Change::Fails(error))) if error.is_conflict() => {
                let from = Version::of(Some(&service.resource_version));
                context.world().refused::<Service>(&key, from);
                (read(&key, &api).await?, from)
            }
            Some(Err(Change::Fails(error))) => return Err(error),
            Some(Ok(changed)) => (changed, Version(0)),
        },
    };
    let Lenient(written) = written;
    let view = Arc::new(ServiceView::of(&written));
    rollback::take_in(written, from, context);
    Ok(Ensured::Written(view))
}

/// Why a Service is not changed.
enum Change {
    /// The rate limit of its changes is reached.
    Waits,
    /// A call to the API server failed.
    Fails(ApiError),
}

async fn read(key: &Key, api: &Api<Lenient<Service>>) -> Result<Lenient<Service>, ApiError> {
    call(|| format!("read Service {key}"), api.get(&key.name)).await
}

/// Returns the Service that [`service`] would find or create, and the description of the write if there would
/// be one. `ours` says whether the operator owns the known Service. The families that the cluster would give to
/// a new Service are unknown. The new Service would ask for both, so it is treated as one that has both.
pub(crate) fn dry_run(
    registration: &Registration,
    known: Option<Arc<ServiceView>>,
    ours: bool,
) -> (Arc<ServiceView>, Option<String>) {
    let name = &registration.service_name;
    match known {
        None => {
            let families = vec![Family::V4, Family::V6];
            let view = ServiceView { families, ..ServiceView::of(&new_service(registration)) };
            (Arc::new(view), Some(format!("create service {name}")))
        }
        Some(service) => {
            let change = new_ports(registration, &service, ours).is_some();
            let change = change.then(|| format!("change the ports of service {name}"));
            (service, change)
        }
    }
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

/// Writes the mark of this registration and the ports of the spec to a Service of the operator. All other
/// fields stay as people have set them. Returns None if both are up to date already, or if the operator does
/// not own the Service.
async fn bring_up_to_date(
    registration: &Registration,
    service: &ServiceView,
    api: &Api<Lenient<Service>>,
    context: &Context,
) -> Option<Result<Lenient<Service>, Change>> {
    let Registration { key, uid, service_name: name, .. } = registration;
    let ours = context.world().owns_service(service, &key.namespace, uid);
    let ports = new_ports(registration, service, ours);
    let marked = service.marked().filter(|marked| marked.namespace.is_some());
    let says_so = marked.is_some_and(|marked| marked.uid == uid);
    if !ours || (says_so && ports.is_none()) {
        return None;
    }
    if let Err(until) = context.may(key, SERVICES, |paces| &mut paces.services) {
        context.remember(key, uid, |memory| memory.requeue_at = Some(until));
        return Some(Err(Change::Waits));
    }
    let mut patch = json!({ "metadata": { "resourceVersion": service.resource_version } });
    if !says_so {
        match claim(registration, service, api).await {
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
    let patched = call_write(context, doing, api.patch(name, &params, &patch)).await;
    if patched.is_ok() && !says_so {
        tracing::info!(registration = %key, service = name, "took over the Service");
    }
    Some(patched.map_err(Change::Fails))
}

/// The metadata that marks a Service as this registration's.
async fn claim(
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
    let doing = || format!("read Service {}/{name}", key.namespace);
    let current = call(doing, api.get(name)).await?.0.metadata;
    Ok(json!({
        "resourceVersion": current.resource_version,
        "annotations": annotations,
        "ownerReferences": marks::remaining_owners(&current),
    }))
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

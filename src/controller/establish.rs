//! The establish step: the Service exists, and a Service of ours has the ports of the spec.

use std::sync::Arc;

use beatkeeper_api::{GROUP, VERSION};
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{
    anew,
    context::{Context, call, call_write},
    error::ApiError,
};
use crate::core::{
    endpoint::Family,
    heartbeat::Version,
    index::Key,
    plan::meta::MANAGER,
    registration::{Registration, TargetPort, text_of},
    service::{ServicePortView, ServiceView},
};

/// Creates the Service when there is none, and brings the ports of one of ours up to date. A Service
/// of others is used as it is. Returns what is now the case, and whether it wrote. Client required.
pub(super) async fn service(
    registration: &Registration,
    known: Option<Arc<ServiceView>>,
    context: &Context,
) -> Result<(Arc<ServiceView>, bool), ApiError> {
    let api = Api::<Service>::namespaced(context.client.clone(), &registration.key.namespace);
    let name = &registration.service_name;
    let key = Key::new(&registration.key.namespace, name);
    let (written, from) = match known {
        None => {
            let service = new_service(registration);
            let created = call_write(
                context,
                || format!("create Service {}/{name}", registration.key.namespace),
                api.create(&PostParams::default(), &service),
            )
            .await;
            match created {
                // Somebody was faster, and the watch has not shown it yet: use what is there.
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
        Some(service) => match change_ports(registration, &service, &api, context).await {
            None => return Ok((service, false)),
            // Somebody has changed it since: judge by what it is now, in the next round.
            Some(Err(error)) if error.is_conflict() => {
                let from = Version::of(Some(&service.resource_version));
                context.world().refused::<Service>(&key, from);
                (read(&key, &api).await?, from)
            }
            Some(changed) => (changed?, Version(0)),
        },
    };
    let view = Arc::new(ServiceView::of(&written));
    anew::take_in(written, from, context);
    Ok((view, true))
}

async fn read(key: &Key, api: &Api<Service>) -> Result<Service, ApiError> {
    call(|| format!("read Service {key}"), api.get(&key.name)).await
}

/// What [`service`] would find or make, and what it would do for that. Nobody knows the families that
/// the cluster would give a new Service: it is taken for one that has both, as it would ask for.
pub(super) fn rehearse(
    registration: &Registration,
    known: Option<Arc<ServiceView>>,
) -> (Arc<ServiceView>, Option<String>) {
    let name = &registration.service_name;
    match known {
        None => {
            let families = vec![Family::V4, Family::V6];
            let view = ServiceView { families, ..ServiceView::of(&new_service(registration)) };
            (Arc::new(view), Some(format!("create service {name}")))
        }
        Some(service) => {
            let change = new_ports(registration, &service).is_some();
            let change = change.then(|| format!("change the ports of service {name}"));
            (service, change)
        }
    }
}

/// The ports that a Service of ours has to be given, if they differ.
fn new_ports(registration: &Registration, service: &ServiceView) -> Option<Vec<ServicePort>> {
    let ours = service.owner.as_deref() == Some(&registration.uid);
    let wanted = ports(registration);
    (ours && views(&wanted) != service.ports).then_some(wanted)
}

/// Brings the ports of a Service of ours up to date; None when there is nothing to do.
async fn change_ports(
    registration: &Registration,
    service: &ServiceView,
    api: &Api<Service>,
    context: &Context,
) -> Option<Result<Service, ApiError>> {
    let wanted = new_ports(registration, service)?;
    let patch = Patch::Merge(json!({
        "metadata": { "resourceVersion": service.resource_version },
        "spec": { "ports": wanted },
    }));
    let name = &registration.service_name;
    let doing = || format!("change the ports of Service {}/{name}", registration.key.namespace);
    Some(call_write(context, doing, api.patch(name, &PatchParams::default(), &patch)).await)
}

fn new_service(registration: &Registration) -> Service {
    Service {
        metadata: ObjectMeta {
            name: Some(registration.service_name.clone()),
            namespace: Some(registration.key.namespace.clone()),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned())].into()),
            owner_references: Some(vec![OwnerReference {
                api_version: format!("{GROUP}/{VERSION}"),
                kind: "ServiceRegistration".to_owned(),
                name: registration.key.name.clone(),
                uid: registration.uid.clone(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            ports: Some(ports(registration)),
            // Both families where the cluster has both: instances of either can then be published.
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

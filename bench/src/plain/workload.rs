//! A usual Deployment, and a Service with a selector.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{self, Namespace, Service};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, from_value, json};

/// The name of the namespace, the Deployment and the Service, and the value of the label `app`.
pub const NAME: &str = "plain";
/// How many Pods there are, which hang side by side.
pub const REPLICAS: usize = 10;

/// A running Pod.
#[derive(Debug, Clone)]
pub struct Pod {
    pub name: String,
    /// Identifies its processes.
    pub uid: String,
    /// Identifies its endpoint in the slices.
    pub address: String,
}

/// Makes the objects in the cluster of KUBECONFIG, without waiting. Returns a client of the cluster.
///
/// # Errors
/// If the cluster does not answer, or already has these objects.
pub async fn create(image: &str) -> Result<Client> {
    let config = Config::infer().await.context("KUBECONFIG names no cluster")?;
    let client = beatkeeper_cluster::connect(&config)?;
    let create = PostParams::default();
    let namespace: Namespace = from_value(json!({ "metadata": { "name": NAME } }))?;
    let created = Api::all(client.clone()).create(&create, &namespace).await;
    created.with_context(|| format!("cannot create namespace {NAME}"))?;
    let service: Service = from_value(json!({
        "metadata": { "name": NAME },
        "spec": { "selector": { "app": NAME }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    }))?;
    Api::namespaced(client.clone(), NAME).create(&create, &service).await?;
    let deployment: Deployment = from_value(deployment(image))?;
    Api::namespaced(client.clone(), NAME).create(&create, &deployment).await?;
    Ok(client)
}

/// Returns the Pods.
///
/// # Errors
/// If the number of Pods with an address is not the expected one.
pub async fn pods(client: &Client) -> Result<Vec<Pod>> {
    let pods: Api<v1::Pod> = Api::namespaced(client.clone(), NAME);
    let pods = pods.list(&ListParams::default().labels(&format!("app={NAME}"))).await?.items;
    let running = |pod: v1::Pod| {
        Some(Pod { name: pod.name_any(), uid: pod.uid()?, address: pod.status?.pod_ip? })
    };
    let pods: Vec<Pod> = pods.into_iter().filter_map(running).collect();
    ensure!(pods.len() == REPLICAS, "{} Pods have an address, not {REPLICAS}", pods.len());
    Ok(pods)
}

/// Starts the removal of all objects, without waiting for its end.
pub async fn remove(client: &Client) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let removed = namespaces.delete(NAME, &DeleteParams::default()).await;
    removed.map(drop).with_context(|| format!("cannot delete namespace {NAME}"))
}

/// The readiness probe names only the port and the path. All its numbers are the defaults, because the defaults are
/// measured.
fn deployment(image: &str) -> Value {
    json!({
        "metadata": { "name": NAME },
        "spec": {
            "replicas": REPLICAS,
            "selector": { "matchLabels": { "app": NAME } },
            "template": {
                "metadata": { "labels": { "app": NAME } },
                "spec": { "containers": [{
                    "name": "greeter",
                    "image": image,
                    "args": ["serve", ":8080"],
                    "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 } },
                }] },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_numbers_of_the_probe_are_left_to_kubernetes() {
        let deployment: Deployment = from_value(deployment("image")).unwrap();
        let containers = deployment.spec.unwrap().template.spec.unwrap().containers;
        let probe = containers[0].readiness_probe.clone().unwrap();
        let expected = v1::Probe { http_get: probe.http_get.clone(), ..v1::Probe::default() };
        assert!(probe.http_get.is_some());
        assert_eq!(probe, expected);
    }
}

//! A usual Deployment, and a Service with a selector.

use anyhow::{Context, Result, ensure};
use beatkeeper_test_support::{Select, SliceObserver};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{self, Namespace, Service};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};

/// The name of the namespace, the Deployment and the Service, and the value of the label `app`.
const NAME: &str = "plain";

/// The objects in the cluster that are measured.
pub struct Workload {
    client: Client,
    replicas: u32,
}

/// A running Pod.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its uid, which identifies its processes.
    pub uid: String,
    /// Its address, which identifies its endpoint in the slices.
    pub address: String,
}

impl Workload {
    /// Makes the objects in the cluster of KUBECONFIG, without waiting.
    ///
    /// # Errors
    /// If the cluster does not answer, or already has these objects.
    pub async fn create(replicas: u32, image: &str) -> Result<Self> {
        let config = Config::infer().await.context("KUBECONFIG names no cluster")?;
        let client = beatkeeper_cluster::connect(&config)?;
        let create = PostParams::default();
        let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAME } }))?;
        Api::all(client.clone())
            .create(&create, &namespace)
            .await
            .with_context(|| format!("cannot create namespace {NAME}"))?;
        let services: Api<Service> = Api::namespaced(client.clone(), NAME);
        services.create(&create, &serde_json::from_value(service())?).await?;
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAME);
        let deployment = serde_json::from_value(deployment(replicas, image))?;
        deployments.create(&create, &deployment).await?;
        Ok(Self { client, replicas })
    }

    /// Starts to observe the slices of the Service: the addresses that are ready.
    pub async fn observe(&self) -> Result<SliceObserver> {
        let slices = Api::namespaced(self.client.clone(), NAME);
        SliceObserver::of_service(slices, NAME, Select::Ready).await
    }

    /// Returns the Pods.
    ///
    /// # Errors
    /// If the number of Pods is not the expected one, or a Pod has no address.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let pods: Api<v1::Pod> = Api::namespaced(self.client.clone(), NAME);
        let pods = pods.list(&ListParams::default().labels(&format!("app={NAME}"))).await?.items;
        ensure!(
            pods.len() == self.replicas as usize,
            "there are {} Pods instead of {}",
            pods.len(),
            self.replicas
        );
        pods.into_iter().map(Pod::of).collect()
    }

    /// Starts the removal of all objects, without waiting for its end.
    pub async fn remove(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces
            .delete(NAME, &DeleteParams::default())
            .await
            .with_context(|| format!("cannot delete namespace {NAME}"))?;
        Ok(())
    }
}

impl Pod {
    fn of(pod: v1::Pod) -> Result<Self> {
        let name = pod.name_any();
        let uid = pod.uid().with_context(|| format!("Pod {name} has no uid"))?;
        let address = pod.status.and_then(|status| status.pod_ip);
        let address = address.with_context(|| format!("Pod {name} has no address"))?;
        Ok(Self { name, uid, address })
    }
}

fn service() -> Value {
    json!({
        "metadata": { "name": NAME },
        "spec": { "selector": { "app": NAME }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    })
}

/// The readiness probe names only the port and the path. All its numbers are the defaults, because the defaults are
/// measured.
fn deployment(replicas: u32, image: &str) -> Value {
    json!({
        "metadata": { "name": NAME },
        "spec": {
            "replicas": replicas,
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
        let deployment: Deployment = serde_json::from_value(deployment(3, "image")).unwrap();
        let containers = deployment.spec.unwrap().template.spec.unwrap().containers;
        let probe = containers[0].readiness_probe.clone().unwrap();
        let expected = v1::Probe { http_get: probe.http_get.clone(), ..v1::Probe::default() };
        assert!(probe.http_get.is_some());
        assert_eq!(probe, expected);
    }

    #[test]
    fn a_pod_without_an_address_is_named() {
        let pod = json!({ "metadata": { "name": "p-1", "uid": "u" }, "status": {} });
        let pod: v1::Pod = serde_json::from_value(pod).unwrap();
        assert_eq!(Pod::of(pod).unwrap_err().to_string(), "Pod p-1 has no address");
    }
}

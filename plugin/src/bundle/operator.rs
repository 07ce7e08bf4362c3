//! What belongs to the operator: its Deployment, its Pods with their logs and metrics, and its Leases.

use std::collections::BTreeSet;

use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Pod};
use kube::Resource;

use super::{
    archive::safe,
    collect::Bundle,
    kinds::{self, Kept},
};
use crate::{error::Error, gather::scope::Scope};

/// The label of the operator's Pods, which the chart sets.
const LABEL: &str = "beatkeeper.dev/operator";
/// The namespace in which `docs/install.md` installs the operator.
const NAMESPACE: &str = "beatkeeper";
/// The container of the operator.
const CONTAINER: &str = "controller";
/// The port of the metrics in the chart's Deployment.
const METRICS_PORT: u16 = 8080;
/// The most of a log that is read: its last lines, and bytes of them.
const LOG_LINES: usize = 5000;
const LOG_BYTES: usize = 2 << 20;

/// A Pod of the operator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Replica {
    namespace: String,
    name: String,
    /// The value of the label: the name of the operator's objects.
    operator: String,
}

impl Bundle<'_> {
    /// Adds what belongs to the operator. Without the right to look into all namespaces, it is looked for where it is
    /// normally, and in the namespace of the bundle.
    ///
    /// # Errors
    /// If the archive cannot be written.
    pub async fn add_operator(&mut self, scope: &Scope) -> Result<(), Error> {
        let mut replicas = BTreeSet::new();
        let failed = self.contents.errors().len();
        self.add_replicas(&Scope::All, &mut replicas).await?;
        if self.contents.errors().len() > failed {
            let own = scope.namespace().unwrap_or(NAMESPACE).to_owned();
            for namespace in BTreeSet::from([NAMESPACE.to_owned(), own]) {
                self.add_replicas(&Scope::Namespace(namespace), &mut replicas).await?;
            }
        }
        if replicas.is_empty() {
            let why = format!("there is no Pod with the label {LABEL}, as far as may be read");
            self.contents.fail("operator", &why);
        }
        let installed: BTreeSet<(String, String)> =
            replicas.iter().map(|it| (it.namespace.clone(), it.operator.clone())).collect();
        for (namespace, operator) in &installed {
            self.add_installed(namespace, operator).await?;
        }
        for replica in &replicas {
            self.add_logs(replica).await?;
            self.add_metrics(replica).await?;
        }
        Ok(())
    }

    async fn add_replicas(
        &mut self,
        scope: &Scope,
        replicas: &mut BTreeSet<Replica>,
    ) -> Result<(), Error> {
        let pods = scope.collection::<Pod>(&self.session.client).labelled(LABEL);
        let what = format!("Pods of the operator in {scope}");
        self.add_all(pods, &what, |pod: &Kept<kinds::Pod>| {
            replicas.insert(Replica {
                namespace: pod.namespace().to_owned(),
                name: pod.name().to_owned(),
                operator: pod.label(LABEL).unwrap_or_default().to_owned(),
            })
        })
        .await
    }

    /// Adds the Deployment of an operator, and the Leases of its election and its probes.
    async fn add_installed(&mut self, namespace: &str, operator: &str) -> Result<(), Error> {
        let scope = Scope::Namespace(namespace.to_owned());
        let deployments = scope.collection::<Deployment>(&self.session.client);
        let what = format!("Deployments in {scope}");
        self.add_all(deployments, &what, |it: &Kept<kinds::Deployment>| {
            it.value["spec"]["selector"]["matchLabels"][LABEL] == operator
        })
        .await?;
        let leases = scope.collection::<Lease>(&self.session.client);
        let what = format!("Leases in {scope}");
        self.add_all(leases, &what, |it: &Kept<kinds::Lease>| {
            it.name() == operator || it.name().starts_with("beatkeeper-probe-")
        })
        .await
    }

    /// Adds the end of the log of a replica, and of the one that ran before in its Pod.
    async fn add_logs(&mut self, replica: &Replica) -> Result<(), Error> {
        let Replica { namespace, name, .. } = replica;
        let path = format!(
            "{}/{name}/log?container={CONTAINER}&timestamps=true&tailLines={LOG_LINES}&limitBytes={LOG_BYTES}",
            Pod::url_path(&(), Some(namespace))
        );
        let what = format!("log of Pod {namespace}/{name}");
        let folder = format!("operator/{}", safe(name));
        match self.read(&path, &what).await {
            Some(log) if log.is_empty() => self.contents.fail(&what, "it is empty"),
            Some(log) => self.add(&folder, "log.txt", log.as_bytes())?,
            None => {}
        }
        // Most replicas have not run before; this is no failure.
        let before = http::Request::get(format!("{path}&previous=true")).body(Vec::new());
        if let Ok(before) = before
            && let Ok(log) = self.session.client.request_text(before).await
            && !log.is_empty()
        {
            self.add(&folder, "log-before.txt", log.as_bytes())?;
        }
        Ok(())
    }

    async fn add_metrics(&mut self, replica: &Replica) -> Result<(), Error> {
        let Replica { namespace, name, .. } = replica;
        let pods = Pod::url_path(&(), Some(namespace));
        let path = format!("{pods}/{name}:{METRICS_PORT}/proxy/metrics");
        let what = format!("metrics of Pod {namespace}/{name}");
        match self.read(&path, &what).await {
            Some(text) => {
                self.add(&format!("operator/{}", safe(name)), "metrics.txt", text.as_bytes())
            }
            None => Ok(()),
        }
    }
}

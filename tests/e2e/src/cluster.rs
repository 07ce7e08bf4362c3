//! The cluster on which the story is played, and the access to it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use beatkeeper_test_support::{Select, SliceObserver};
use kube::{Api, Client};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::command;
use crate::host::Host;
use crate::plugin::Plugin;

/// The namespace and the name of the release.
pub(crate) const RELEASE: &str = "beatkeeper";
/// The namespace of the app.
pub(crate) const NAMESPACE: &str = "beatkeeper-e2e";
/// The namespace in which the manifests of examples/kubernetes are tried.
pub(crate) const SAMPLE: &str = "beatkeeper-e2e-sample";
/// The ttl of the registrations in tests/e2e/manifests.
pub(crate) const TTL: Duration = Duration::from_secs(5);
pub(crate) const CRD: &str = "serviceregistrations.beatkeeper.dev";
/// The strictest of the Pod Security Standards. All manifests here comply with it, and so does the chart.
const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";

/// The timeout for operations that take seconds, such as pulling an image or stopping a Pod.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Images {
    pub(crate) beatkeeper: String,
    pub(crate) greeter: String,
}

pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) images: Images,
    pub(crate) host: Option<Host>,
    pub(crate) plugin: Option<Plugin>,
    helm: PathBuf,
    home: TempDir,
}

impl Cluster {
    /// # Errors
    ///
    /// If the cluster does not answer, or already contains something that the story installs and removes.
    pub(crate) async fn prepare(
        images: Images,
        helm: PathBuf,
        host: Option<Host>,
        plugin: Option<Plugin>,
    ) -> Result<Self> {
        let client = Client::try_default().await.context("KUBECONFIG names no cluster")?;
        let cluster = Self { client, images, host, plugin, helm, home: tempfile::tempdir()? };
        let there = cluster
            .kubectl(&format!(
                "get --ignore-not-found --output name namespace/{RELEASE} namespace/{NAMESPACE} namespace/{SAMPLE} \
                 customresourcedefinition/{CRD}"
            ))
            .await?;
        ensure!(
            there.trim().is_empty(),
            "this cluster has {} already, which the story would change and remove: take another cluster, or uninstall \
             Beatkeeper first",
            there.trim().replace('\n', ", ")
        );
        for namespace in [RELEASE, NAMESPACE, SAMPLE] {
            cluster.kubectl(&format!("create namespace {namespace}")).await?;
            cluster.kubectl(&format!("label namespace {namespace} {RESTRICTED}")).await?;
        }
        Ok(cluster)
    }

    /// Runs kubectl with arguments that contain no spaces.
    pub(crate) async fn kubectl(&self, arguments: &str) -> Result<String> {
        self.kubectl_with(&arguments.split_whitespace().collect::<Vec<_>>(), "").await
    }

    /// Runs kubectl in the app's namespace.
    pub(crate) async fn in_namespace(&self, arguments: &str) -> Result<String> {
        self.kubectl(&format!("--namespace {NAMESPACE} {arguments}")).await
    }

    pub(crate) async fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut kubectl = Command::new("kubectl");
        kubectl.args(arguments);
        command::run(kubectl, input).await
    }

    pub(crate) async fn json(&self, arguments: &str) -> Result<Value> {
        let said = self.in_namespace(&format!("{arguments} --output json")).await?;
        Ok(serde_json::from_str(&said)?)
    }

    /// Applies a manifest in the app's namespace, after filling in the images and further placeholders.
    pub(crate) async fn apply(&self, manifest: &str, further: &[(&str, &str)]) -> Result<()> {
        let mut manifest = manifest.replace("$NAMESPACE", NAMESPACE);
        manifest = manifest.replace("$BEATKEEPER_IMAGE", &self.images.beatkeeper);
        manifest = manifest.replace("$GREETER_IMAGE", &self.images.greeter);
        for (name, value) in further {
            manifest = manifest.replace(name, value);
        }
        self.kubectl_with(&["--namespace", NAMESPACE, "apply", "--filename", "-"], &manifest)
            .await?;
        Ok(())
    }

    /// Runs helm with a home folder of its own, so that it neither reads nor writes the user's files.
    pub(crate) async fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut helm = Command::new(&self.helm);
        helm.args(arguments).args(["--namespace", RELEASE]);
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(variable, self.home.path());
        }
        command::run(helm, "").await
    }

    /// Runs commands as a user types them.
    pub(crate) async fn shell(&self, commands: &str) -> Result<String> {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", commands]);
        command::run(bash, "").await
    }

    /// Returns a path for a file that is removed at the end.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes a kubeconfig for another user of the same cluster.
    pub(crate) async fn kubeconfig(&self, name: &str, token: &str) -> Result<PathBuf> {
        let own = self.kubectl("config view --minify --raw --flatten --output json").await?;
        let own: Value = serde_json::from_str(&own)?;
        let cluster = &own["clusters"][0];
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [cluster],
            "users": [{ "name": name, "user": { "token": token } }],
            "contexts": [{ "name": name, "context": {
                "cluster": cluster["name"], "user": name, "namespace": NAMESPACE,
            } }],
            "current-context": name,
        });
        let path = self.file(&format!("{name}.kubeconfig"));
        std::fs::write(&path, kubeconfig.to_string())?;
        Ok(path)
    }

    /// Observes the slices of a Service: the addresses that are ready.
    pub(crate) async fn observe(&self, service: &str) -> Result<SliceObserver> {
        let slices = Api::namespaced(self.client.clone(), NAMESPACE);
        SliceObserver::of_service(slices, service, Select::Ready).await
    }

    /// Waits until a check returns a value.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let by = Instant::now() + PATIENCE;
        let mut last = None;
        loop {
            match look().await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(error) => last = Some(error),
            }
            if Instant::now() > by {
                let why = last.map(|error| format!(": {error:#}")).unwrap_or_default();
                bail!("waited {} s in vain until {what}{why}", PATIENCE.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until a registration has `count` ready instances.
    pub(crate) async fn until_ready(&self, registration: &str, count: u64) -> Result<()> {
        self.until(&format!("{registration} has {count} ready instances"), async || {
            let registration = self.json(&format!("get sreg {registration}")).await?;
            Ok((registration["status"]["ready"] == count).then_some(()))
        })
        .await
    }

    /// Waits until an instance has the given state in the status, and returns its reason and message.
    pub(crate) async fn until_told(
        &self,
        registration: &str,
        instance: &str,
        state: &str,
    ) -> Result<String> {
        self.until(&format!("{registration} tells that {instance} is {state}"), async || {
            let registration = self.json(&format!("get sreg {registration}")).await?;
            let instances = registration["status"]["instances"].as_array().cloned();
            let found = instances.into_iter().flatten().find(|it| it["name"] == instance);
            let found = found.filter(|it| it["state"] == state);
            Ok(found.map(|it| {
                let text = |field: &str| it[field].as_str().unwrap_or_default().to_owned();
                format!("{}: {}", text("reason"), text("message"))
            }))
        })
        .await
    }

    /// Returns the names of the Running Pods of an app that are not being deleted.
    pub(crate) async fn pods(&self, app: &str) -> Result<Vec<String>> {
        let pods = self.json(&format!("get pods --selector app={app}")).await?;
        let pods = pods["items"].as_array().context("no list of Pods")?;
        let living = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let running = living.filter(|pod| pod["status"]["phase"] == "Running");
        Ok(running.filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect())
    }

    /// Returns the names of the operator's Pods.
    pub(crate) async fn operators(&self) -> Result<Vec<String>> {
        let of = format!(
            "--namespace {RELEASE} get pods --selector app.kubernetes.io/component=operator --output jsonpath={{.items[*].metadata.name}}"
        );
        Ok(self.kubectl(&of).await?.split_whitespace().map(str::to_owned).collect())
    }

    /// Runs the greeter's client in a Pod to its end, and returns its output.
    pub(crate) async fn once(&self, name: &str, arguments: &[&str]) -> Result<String> {
        self.pod(name, arguments).await?;
        self.end_of(name).await
    }

    /// Waits until a Pod with a client has ended well, deletes it, and returns its output.
    pub(crate) async fn end_of(&self, name: &str) -> Result<String> {
        let wait =
            format!("wait --for=jsonpath={{.status.phase}}=Succeeded --timeout=60s pod/{name}");
        let ended = self.in_namespace(&wait).await;
        let said = self.in_namespace(&format!("logs {name}")).await?;
        ended.with_context(|| said.clone())?;
        self.in_namespace(&format!("delete pod {name} --wait=false")).await?;
        Ok(said)
    }

    pub(crate) async fn pod(&self, name: &str, arguments: &[&str]) -> Result<()> {
        let arguments = serde_json::to_string(arguments)?;
        let manifest = include_str!("../manifests/pod.yaml");
        self.apply(manifest, &[("$NAME", name), ("$ARGUMENTS", &arguments)]).await
    }

    /// Prints the objects of the cluster, to help find the cause of a failure.
    pub(crate) async fn show_what_is_there(&self) {
        for what in [
            format!("--namespace {NAMESPACE} get pods,sreg,endpointslices --output wide"),
            format!("--namespace {NAMESPACE} get events --sort-by=.lastTimestamp"),
            format!("--namespace {RELEASE} get pods,leases,events --output wide"),
            format!(
                "--namespace {RELEASE} logs --selector app.kubernetes.io/name=beatkeeper --prefix --tail=40"
            ),
        ] {
            let said = self.kubectl(&what).await.unwrap_or_else(|error| format!("{error:#}\n"));
            let lines: Vec<_> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("\n-- kubectl {what}\n{last}");
        }
    }

    /// Removes everything that the story leaves.
    pub(crate) async fn clear(&self) -> Result<()> {
        println!("\n== removing what the story installed");
        // Failures are ignored here. The namespaces are removed last, and their removal shows whether all of it
        // succeeded.
        let _ = self.helm(&["uninstall", RELEASE, "--ignore-not-found", "--wait"]).await;
        let _ = self
            .kubectl(&format!("delete customresourcedefinition {CRD} --ignore-not-found"))
            .await;
        self.kubectl(&format!(
            "delete namespace {RELEASE} {NAMESPACE} {SAMPLE} --ignore-not-found --timeout=120s"
        ))
        .await?;
        Ok(())
    }
}

/// Returns the path of this repository's chart.
pub(crate) fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/beatkeeper")
}

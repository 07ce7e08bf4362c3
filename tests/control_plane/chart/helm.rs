//! helm as a user runs it.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use beatkeeper_cluster::ControlPlane;
use tokio::{io::AsyncWriteExt, process::Command};

/// The namespace of the releases, and also their name.
pub const RELEASE: &str = "beatkeeper";

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn chart() -> PathBuf {
    root().join("charts/beatkeeper")
}

/// Every variant of the values that the chart is checked with, with its name and file.
pub fn variants() -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(chart().join("ci")).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = entries
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    all.sort();
    all
}

/// helm with an administrator's kubeconfig, or without any.
pub struct Helm<'a> {
    plane: Option<&'a ControlPlane>,
    home: tempfile::TempDir,
}

impl<'a> Helm<'a> {
    pub fn on(plane: &'a ControlPlane) -> Self {
        Self { plane: Some(plane), home: tempfile::tempdir().unwrap() }
    }

    /// helm without a cluster.
    pub fn offline() -> Self {
        Self { plane: None, home: tempfile::tempdir().unwrap() }
    }

    /// `helm template`, in the release's namespace.
    pub async fn render(&self, values: &[&str]) -> String {
        let chart = chart();
        let mut args = vec!["template", RELEASE, chart.to_str().unwrap(), "--namespace", RELEASE];
        args.extend(values);
        self.run(&args).await
    }

    /// Returns the output of helm, or the reason why it fails.
    pub async fn try_run(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new(root().join("scripts/helm"))
            .args(args)
            .env_remove("KUBECONFIG")
            .envs(self.plane.into_iter().flat_map(ControlPlane::environment))
            .env("HELM_CACHE_HOME", self.home.path())
            .env("HELM_CONFIG_HOME", self.home.path())
            .env("HELM_DATA_HOME", self.home.path())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        said(&output)
    }

    pub async fn run(&self, args: &[&str]) -> String {
        self.try_run(args).await.unwrap_or_else(|error| panic!("helm {args:?}: {error}"))
    }

    /// Runs `helm VERB beatkeeper CHART` in the namespace of the release.
    pub async fn release(&self, verb: &str, chart: &Path, values: &[&str]) -> String {
        let chart = chart.to_str().unwrap();
        let mut args = vec![verb, RELEASE, chart, "--namespace", RELEASE, "--create-namespace"];
        args.extend(values);
        self.run(&args).await
    }

    /// Runs kubectl with a manifest. Returns its output, warnings included.
    pub async fn kubectl(&self, args: &[&str], manifest: &str) -> Result<String, String> {
        let plane = self.plane.expect("kubectl has a cluster");
        let mut child = Command::new(plane.bin("kubectl"))
            .args(args)
            .envs(plane.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(manifest.as_bytes()).await.unwrap();
        drop(stdin);
        said(&child.wait_with_output().await.unwrap())
    }
}

fn said(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = text(&output.stdout) + &text(&output.stderr);
    if output.status.success() { Ok(all) } else { Err(all) }
}

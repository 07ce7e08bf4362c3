//! The API server accepts the manifests in examples/kubernetes unchanged.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::program;
use crate::support::TestNamespace;

const KUSTOMIZATION: &str = "kustomization.yaml";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/kubernetes")
}

/// Every existing manifest, so that none is left out.
fn manifests() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| !path.ends_with(KUSTOMIZATION))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[tokio::test]
async fn the_api_server_takes_every_manifest_and_no_pod_of_theirs_asks_for_privileges() {
    let ns = TestNamespace::new("example-manifests").await;
    let strict =
        json!({ "metadata": { "labels": { "pod-security.kubernetes.io/warn": "restricted" } } });
    Api::<Namespace>::all(ns.client.clone())
        .patch(&ns.name, &PatchParams::default(), &Patch::Merge(strict))
        .await
        .unwrap();
    let manifests = manifests();
    assert!(manifests.len() >= 4, "{manifests:?}");
    for (name, manifest) in manifests {
        let flags = ["--server-side", "--dry-run=server", "--validate=strict"];
        let warned = program::apply_with(&ns, &manifest, &flags).await;
        assert_eq!(warned, "", "{name}");
    }
}

#[tokio::test]
async fn the_kustomization_moves_everything_to_another_namespace_and_to_other_images() {
    let ns = TestNamespace::new("example-kustomization").await;
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder()).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let file = copy.path().join(KUSTOMIZATION);
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text
        .replace("namespace: default", &format!("namespace: {}", ns.name))
        .replace("newName: ghcr.io/beatkeeper/beatkeeper", "newName: mirror/agent")
        .replace("newName: registry.example.com/greeter", "newName: mirror/app");
    std::fs::write(&file, text).unwrap();

    let folder = copy.path().to_str().unwrap();
    let (rendered, _) = program::kubectl(&ns, &["kustomize", folder]).await;
    for kind in ["ServiceRegistration", "ServiceAccount", "RoleBinding", "Deployment"] {
        assert!(rendered.contains(&format!("kind: {kind}\n")), "{kind}: {rendered}");
    }
    assert!(rendered.contains("image: mirror/agent:0.1.0\n"), "{rendered}");
    assert!(rendered.contains("image: mirror/app:1.4.2\n"), "{rendered}");
    assert!(!rendered.contains("namespace: default"), "{rendered}");
    // Applied without dry run. Nothing runs the Pods here.
    let warned = program::apply_with(&ns, &rendered, &["--server-side"]).await;
    assert_eq!(warned, "");
    assert_eq!(ns.registration("greeter").await.spec.ttl, "30s");
}

#[tokio::test]
async fn only_the_sample_with_the_readiness_gate_waits_for_the_right_to_set_it() {
    let ns = TestNamespace::new("example-readiness-gate").await;
    let gated = folder().with_file_name("readiness-gate");
    for (folder, waits) in [(folder(), false), (gated, true)] {
        let folder = folder.to_str().unwrap();
        let (rendered, _) = program::kubectl(&ns, &["kustomize", folder]).await;
        assert!(rendered.contains("kind: Deployment\n"), "{folder}: {rendered}");
        let gate = "- conditionType: beatkeeper.dev/published\n";
        assert_eq!(rendered.contains(gate), waits, "{folder}: {rendered}");
    }
}

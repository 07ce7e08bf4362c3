//! The manifests in examples/kubernetes: the API server takes them as they are.

use std::path::Path;

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::program;
use crate::support::Shop;

/// Every file there is, so that none is forgotten.
fn manifests() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/kubernetes");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[tokio::test]
async fn the_api_server_takes_every_manifest_and_no_pod_of_theirs_asks_for_privileges() {
    let shop = Shop::open("example-manifests").await;
    let strict =
        json!({ "metadata": { "labels": { "pod-security.kubernetes.io/warn": "restricted" } } });
    Api::<Namespace>::all(shop.client.clone())
        .patch(&shop.namespace, &PatchParams::default(), &Patch::Merge(strict))
        .await
        .unwrap();
    let manifests = manifests();
    assert!(manifests.len() >= 4, "{manifests:?}");
    for (name, manifest) in manifests {
        let flags = ["--server-side", "--dry-run=server", "--validate=strict"];
        let warned = program::apply_with(&shop, &manifest, &flags).await;
        assert_eq!(warned, "", "{name}");
    }
}

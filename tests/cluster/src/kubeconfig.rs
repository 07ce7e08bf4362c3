//! Kubeconfig files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::pki::Identity;

/// Writes a kubeconfig as JSON. JSON is YAML, so every reader of kubeconfigs accepts it.
pub(crate) fn write(to: &Path, server: &str, ca: &Path, identity: &Identity) -> Result<()> {
    let name = "beatkeeper-test";
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": { "server": server, "certificate-authority": ca } }],
        "users": [{ "name": name, "user": {
            "client-certificate": identity.certificate,
            "client-key": identity.key,
        } }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
        "current-context": name,
    });
    fs::write(to, serde_json::to_string_pretty(&config)?)
        .with_context(|| format!("cannot write {}", to.display()))
}

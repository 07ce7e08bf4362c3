//! Kubeconfig files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

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

/// The administrator's kubeconfig with a token in place of the certificate, and with a namespace if one is named.
pub(crate) fn with_token(admin: &Path, token: &str, namespace: Option<&str>) -> Result<String> {
    let text = fs::read(admin).with_context(|| format!("cannot read {}", admin.display()))?;
    let mut config: Value =
        serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", admin.display()))?;
    config["users"][0]["user"] = json!({ "token": token });
    if let Some(namespace) = namespace {
        config["contexts"][0]["context"]["namespace"] = json!(namespace);
    }
    Ok(config.to_string())
}
